"""What serving costs: sam-serve against direct calls, and against a real tritonserver.

    python benchmarks/serving.py [--out FILE.json] [--rounds N] [--seconds S]

Everything is measured in one run, in turn, round after round; figures are medians over the rounds,
ratios too: of each round's own.
With smt_t the engine does the work: p50 at one client and throughput at eight, against calls of the
same engine in a process of its own. With a model that does nothing the protocol does: REST against
tritonserver with a Python backend that does nothing either.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

import sam_deploy
from sam_deploy.cpu_info import machine

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from _load import Job, Load  # noqa: E402
from serve_process import serving  # noqa: E402
from triton_process import triton  # noqa: E402

CLIENTS = 8
Figures = dict[str, dict[str, list[float]]]
DIRECT = """
import json, sys, threading, time
import numpy as np, sam_deploy
bundle, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
engine = sam_deploy.load(bundle, contexts=1)
x = np.load(sys.argv[4])
engine(x)
latencies, until = [], time.perf_counter() + seconds
def client():
    while (begun := time.perf_counter()) < until:
        engine(x)
        latencies.append(1e3 * (time.perf_counter() - begun))
begun = time.perf_counter()
threads = [threading.Thread(target=client) for _ in range(clients)]
[t.start() for t in threads]; [t.join() for t in threads]
print(json.dumps({"latencies_ms": latencies, "others": {}, "seconds": time.perf_counter() - begun}))
"""


def export(work: Path) -> tuple[Path, Path]:
    """smt_t in FP16, and a network that does next to nothing."""
    import torch

    class Nothing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 0, 0] + 1

    command = [str(Path(sys.executable).parent / "sam-export"), "--model", "smt_t", "--fp16"]
    subprocess.run([*command, "--engine", "none", "--out", str(work)], check=True)
    x = torch.randn(4, 3, 224, 224)
    made = sam_deploy.export(Nothing(), (x,), out=work / "nothing")
    return work / "smt_t-fp16-224", Path(made.bundle)


class Requests:
    """The bytes of a request for `model`, and how the answer ends."""

    def __init__(self, work: Path, model: str, bundle: Path, x: Any, address: str) -> None:
        self._work = work
        self._stem = f"{model}-{abs(hash((str(bundle), address)))}"
        engine = sam_deploy.load(bundle, "cpu")
        (given,), (wanted,) = engine.manifest.inputs, engine.manifest.outputs
        self.expected = np.asarray(engine(x), wanted.dtype).tobytes()[-2:]
        http = triton_http.InferInput(given.name, list(x.shape), "FP32")
        http.set_data_from_numpy(x)
        body, size = triton_http.InferenceServerClient.generate_request_body(
            [http], outputs=[triton_http.InferRequestedOutput(wanted.name)]
        )
        head = (
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {address}\r\n"
            f"Inference-Header-Content-Length: {size}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        rpc = triton_grpc.InferInput(given.name, list(x.shape), "FP32")
        rpc.set_data_from_numpy(x)
        message = triton_grpc._utils._get_inference_request(
            model_name=model, inputs=[rpc], model_version="", request_id="", outputs=None,
            sequence_id=0, sequence_start=False, sequence_end=False, priority=0, timeout=None,
            parameters=None,
        )  # fmt: skip
        self._bytes = {"rest": head.encode() + bytes(body), "grpc": message.SerializeToString()}

    def load(self, protocol: str, address: str, clients: int, seconds: float) -> Load:
        """Send it from so many clients."""
        request = self._work / f"{self._stem}.{protocol}"
        request.write_bytes(self._bytes[protocol])
        expected = self._work / f"{self._stem}.expected"
        expected.write_bytes(b"")
        job = self._work / "job.json"
        job.write_text(
            json.dumps(vars(Job(protocol, address, str(request), str(expected), clients, seconds)))
        )
        return measured([str(ROOT / "benchmarks/_load.py"), str(job)])


def measured(command: list[str]) -> Load:
    """What a Python process prints of its own load; every answer must have been good."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    load = Load(**json.loads(done.stdout))
    if load.others or not load.latencies_ms:
        raise SystemExit(f"{command}: {load.others or 'nothing was answered'}")
    return load


@contextmanager
def tritonserver(model: str, bundle: Path, work: Path) -> Iterator[str]:
    """A real one, with `model` on a backend that does nothing; its REST address."""
    from sam_deploy.serving.triton import write_repository

    write_repository(work / "repo", [bundle])
    config = work / "repo" / model / "config.pbtxt"
    text = config.read_text().replace("onnxruntime_onnx", "tensorrt_plan")
    config.write_text(text.replace('"onnxruntime"', '"tensorrt"'))
    with triton(work / "repo", work / "triton") as server:
        yield server.http


def paired(figures: Figures, what: str, over: str, key: str) -> float:
    """The median over the rounds of the ratio in each: a machine's speed changes between them."""
    pairs = zip(figures[what][key], figures[over][key], strict=True)
    return statistics.median(one / other for one, other in pairs)


def main() -> int:
    """Measure and print; with --out, keep."""
    parser = argparse.ArgumentParser(description="what serving costs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    figures: Figures = {}

    def note(what: str, load: Load) -> None:
        one = figures.setdefault(what, {"p50_ms": [], "per_s": []})
        one["p50_ms"].append(statistics.median(load.latencies_ms))
        one["per_s"].append(len(load.latencies_ms) / load.seconds)
        print(f"{what}: p50 {one['p50_ms'][-1]:.2f} ms, {one['per_s'][-1]:.1f}/s", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, nothing = export(work)
        x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
        np.save(work / "x.npy", x)
        for _ in range(arguments.rounds):
            with serving(model) as server:
                sent = Requests(work, model.name, model, x, server.rest)
                for clients in (1, CLIENTS):
                    direct = ["-c", DIRECT, str(model), str(clients), str(arguments.seconds)]
                    note(f"direct, {clients}", measured([*direct, str(work / "x.npy")]))
                    for protocol, address in (("rest", server.rest), ("grpc", server.grpc)):
                        load = sent.load(protocol, address, clients, arguments.seconds)
                        note(f"{protocol}, {clients}", load)
        with ExitStack() as stack:
            server = stack.enter_context(serving(nothing, max_batch=CLIENTS))
            other = stack.enter_context(tritonserver(nothing.name, nothing, work))
            sent = Requests(work, nothing.name, nothing, x, server.rest)
            for _ in range(arguments.rounds):
                for name, address in (("sam-serve", server.rest), ("tritonserver", other)):
                    load = sent.load("rest", address, CLIENTS, arguments.seconds)
                    note(f"no-op {name}, {CLIENTS}", load)
    medians = {
        what: {key: statistics.median(values) for key, values in one.items()}
        for what, one in figures.items()
    }
    ratios = {
        **{
            f"{protocol}: p50 at 1 client over direct": paired(
                figures, f"{protocol}, 1", "direct, 1", "p50_ms"
            )
            for protocol in ("rest", "grpc")
        },
        **{
            f"{protocol}: throughput at {CLIENTS} clients over direct": paired(
                figures, f"{protocol}, {CLIENTS}", f"direct, {CLIENTS}", "per_s"
            )
            for protocol in ("rest", "grpc")
        },
        f"no-op over REST at {CLIENTS} clients, over tritonserver": paired(
            figures, f"no-op sam-serve, {CLIENTS}", f"no-op tritonserver, {CLIENTS}", "per_s"
        ),
    }
    for what, ratio in ratios.items():
        print(f"{what}: {ratio:.2f}")
    record = {
        "command": " ".join(["python benchmarks/serving.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {
            name: version(name) for name in ("sam-deploy", "onnxruntime", "uvicorn", "grpcio")
        },
        "ratios": {what: round(ratio, 3) for what, ratio in ratios.items()},
        "medians": medians,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
