"""Ten minutes of sam-serve at 1.5 times what it can do: nothing lost, nothing wrong, memory flat.

    python benchmarks/soak.py [--out FILE.json] [--minutes M]

Capacity is what eight clients get answered who wait for each answer. Then requests come at 1.5
times that rate whether others are answered or not, over REST, each with one of several inputs whose
outputs are known. What is accepted must be answered once and right; the rest must be refused with
503. Memory is the resident size of the server and its worker, after the first minute against the
end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import tritonclient.http as triton_http

import sam_deploy
from sam_deploy.cpu_info import machine

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from serve_process import serving  # noqa: E402

CLIENTS, OVER, INPUTS = 8, 1.5, 16
QUEUE = 32
AT_MOST_GROWTH = 0.05


class Sender:
    """Sends one of the inputs, and knows what must come back."""

    def __init__(self, url: str, bundle: Path) -> None:
        engine = sam_deploy.load(bundle, "cpu")
        self._url = f"{url}/v2/models/{bundle.name}/infer"
        self.outcomes: Counter[str] = Counter()
        self._requests: list[tuple[bytes, dict[str, str], Any]] = []
        for seed in range(INPUTS):
            x = np.random.default_rng(seed).standard_normal((1, 3, 224, 224), np.float32)
            sent = triton_http.InferInput("input", list(x.shape), "FP32")
            sent.set_data_from_numpy(x)
            body, size = triton_http.InferenceServerClient.generate_request_body([sent])
            headers = {"Inference-Header-Content-Length": str(size)}
            self._requests.append((bytes(body), headers, engine(x)))

    async def send(self, session: aiohttp.ClientSession, number: int) -> None:
        """One request; its outcome is counted."""
        body, headers, expected = self._requests[number % INPUTS]
        try:
            async with session.post(self._url, data=body, headers=headers) as answer:
                data = await answer.read()
                if answer.status != 200:
                    self.outcomes[str(answer.status)] += 1
                    return
                size = answer.headers.get("Inference-Header-Content-Length")
        except aiohttp.ClientError as error:
            self.outcomes[type(error).__name__] += 1
            return
        found = triton_http.InferenceServerClient.parse_response_body(
            data, header_length=size and int(size)
        ).as_numpy("logits")
        near = np.allclose(found, expected, rtol=1e-3, atol=1e-4)
        self.outcomes["right" if near else "wrong"] += 1


async def capacity(sender: Sender, seconds: float) -> float:
    """Requests a second that clients get answered who wait for each."""
    async with aiohttp.ClientSession() as session:
        until = time.monotonic() + seconds

        async def client(number: int) -> None:
            while time.monotonic() < until:
                await sender.send(session, number)

        before = sender.outcomes.total()
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        return (sender.outcomes.total() - before) / seconds


async def flood(sender: Sender, per_s: float, seconds: float, sample: Any) -> int:
    """Send at this rate, whatever is answered; `sample` is called every five seconds."""
    tasks: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        begun, sent, sampled = time.monotonic(), 0, 0.0
        while (now := time.monotonic() - begun) < seconds:
            while sent < now * per_s:
                task = asyncio.create_task(sender.send(session, sent))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            if now >= sampled:
                sample()
                sampled += 5
            await asyncio.sleep(0.5 / per_s)
        await asyncio.gather(*tasks)
    return sent


def resident_mb(pids: list[int]) -> float:
    """Of these processes together."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096 / 2**20


def main() -> int:
    """Run, judge and print; with --out, keep. 1 where something was lost, wrong or grew."""
    parser = argparse.ArgumentParser(description="sam-serve beyond its capacity")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).parent / "sam-export"), "--model", "smt_t", "--fp16"]
        subprocess.run([*command, "--engine", "none", "--out", folder], check=True)
        bundle = Path(folder) / "smt_t-fp16-224"
        with serving(bundle, queue=QUEUE, log_level="warning") as server:
            sender = Sender(server.url, bundle)
            able = asyncio.run(capacity(sender, 30))
            sender.outcomes.clear()
            processes = [server.process.pid, *server.workers()]
            memory: list[float] = []

            def sample() -> None:
                memory.append(resident_mb(processes))

            seconds = 60 * arguments.minutes
            sent = asyncio.run(flood(sender, OVER * able, seconds, sample))
            counted = server.counted("sam_requests_total", model=bundle.name, code="OK")
            restarts = server.counted("sam_restarts_total")
    warm = statistics.median(memory[len(memory) // 10 : len(memory) // 10 + 6])
    growth = statistics.median(memory[-6:]) / warm - 1
    outcomes = dict(sender.outcomes)
    record = {
        "command": " ".join(["python benchmarks/soak.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {name: version(name) for name in ("sam-deploy", "onnxruntime")},
        "capacity_per_s": round(able, 1),
        "sent": sent,
        "outcomes": outcomes,
        "memory_growth": round(growth, 4),
        "memory_mb": round(warm, 1),
        "restarts": restarts,
    }
    print(json.dumps(record, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    whole = outcomes.keys() <= {"right", "503"} and sum(outcomes.values()) == sent
    answered_once = counted >= outcomes["right"]
    good = whole and answered_once and not restarts and growth < AT_MOST_GROWTH
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
