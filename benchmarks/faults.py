"""What goes wrong in production, in full: malformed requests, a stop under load, a kill.

    python benchmarks/faults.py [--out FILE.json] [--requests N]

20,000 malformed requests over REST and gRPC: no crash, no 500, and the next good request is
answered. SIGTERM with 50 requests in flight: 50 are answered. Kill -9 of the worker under load:
started again, counted, nothing lost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton_http

import sam_deploy
from sam_deploy.cpu_info import machine

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from broken_requests import bombard, unexpected  # noqa: E402
from serve_process import serving, until  # noqa: E402

IN_FLIGHT, KILLS = 50, 10


class Asker:
    """Asks a server, and compares with the engine."""

    def __init__(self, bundle: Path) -> None:
        self.name = bundle.name
        self._x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
        self._expected = sam_deploy.load(bundle, "cpu")(self._x)

    def right(self, server: Any) -> bool:
        """Whether a request is answered, and rightly."""
        with triton_http.InferenceServerClient(server.rest, network_timeout=120) as client:
            sent = triton_http.InferInput("input", list(self._x.shape), "FP32")
            sent.set_data_from_numpy(self._x)
            found = client.infer(self.name, [sent]).as_numpy("logits")
        return bool(np.allclose(found, np.asarray(self._expected), rtol=1e-3, atol=1e-4))


def malformed(bundle: Path, asker: Asker, count: int) -> dict[str, Any]:
    """Outcomes of malformed requests."""
    with serving(bundle, log_level="warning") as server:
        met = bombard(server, asker.name, count)
        return {
            "requests": count,
            "outcomes": {str(outcome): times for outcome, times in met.items()},
            "unexpected": {str(outcome): times for outcome, times in unexpected(met).items()},
            "restarts": server.counted("sam_restarts_total"),
            "tracebacks": server.log.count("raceback"),
            "good afterwards": asker.right(server),
        }


def stopped(bundle: Path, asker: Asker) -> dict[str, int]:
    """How many of those in flight a server answers after SIGTERM, and how it ends."""
    with serving(bundle, drain_s=1) as server, ThreadPoolExecutor(IN_FLIGHT) as threads:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        waiting = [threads.submit(asker.right, server) for _ in range(IN_FLIGHT)]
        until(lambda: server.counted("sam_queued") >= IN_FLIGHT - 4)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.get("/v2/health/ready")[0] == 503)
        os.kill(worker, signal.SIGCONT)
        answered = sum(future.result() for future in waiting)
        return {"in flight": IN_FLIGHT, "answered": answered, "exit": server.process.wait(60)}


def killed(bundle: Path, asker: Asker) -> dict[str, Any]:
    """What becomes of requests while the worker is killed again and again."""
    with serving(bundle) as server, ThreadPoolExecutor(4) as threads:
        asked: list[Any] = []
        for kill in range(KILLS):
            asked += [threads.submit(asker.right, server) for _ in range(8)]
            time.sleep(0.3)
            os.kill(server.workers()[0], signal.SIGKILL)
            until(lambda n=kill: server.counted("sam_restarts_total", what="worker") == n + 1, 60)
        answered = sum(future.result() for future in asked)
        restarts = server.counted("sam_restarts_total", what="worker")
        return {"kills": KILLS, "restarts": restarts, "asked": len(asked), "answered": answered}


def main() -> int:
    """Run, judge and print; with --out, keep. 1 where something was lost."""
    parser = argparse.ArgumentParser(description="sam-serve's faults, in full")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).parent / "sam-export"), "--model", "smt_t", "--fp16"]
        subprocess.run([*command, "--engine", "none", "--out", folder], check=True)
        bundle = Path(folder) / "smt_t-fp16-224"
        asker = Asker(bundle)
        record: dict[str, Any] = {
            "command": " ".join(["python benchmarks/faults.py", *sys.argv[1:]]),
            "machine": machine(),
            "versions": {name: version(name) for name in ("sam-deploy", "onnxruntime")},
            "malformed": malformed(bundle, asker, arguments.requests),
            "SIGTERM": stopped(bundle, asker),
            "kill -9": killed(bundle, asker),
        }
    print(json.dumps(record, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    bad, stop, kill = record["malformed"], record["SIGTERM"], record["kill -9"]
    good = (
        not bad["unexpected"] and not bad["restarts"] and not bad["tracebacks"]
        and bad["good afterwards"] and stop["answered"] == stop["in flight"] and not stop["exit"]
        and kill["answered"] == kill["asked"] and kill["restarts"] == kill["kills"]
    )  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
