"""What clients notice when a node of a Ray cluster is lost, again and again.

    python benchmarks/ray_node_loss.py --out benchmarks/results/ray-node-loss-x86-2core.json

Two raylets on this machine with a replica each, and sam-serve --ray on them. After 10 seconds one
is killed with all that it runs; 5 seconds after Ray noticed, another joins, and so on. Clients send
again what ended with 5xx or without an answer, four times at most; what failed then is lost, and so
is an answer that is not the engine's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import sam_deploy
from sam_deploy.cpu_info import machine

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from ray_process import Load, ray_serving, two_nodes  # noqa: E402

CLIENTS = 4
WHOLE_S, AWAY_S = 10.0, 5.0


def measured(bundle: Path, seconds: float) -> dict[str, Any]:
    """Requests, and what became of them."""
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    with sam_deploy.load(bundle, "cpu") as engine:
        expected = engine(x)
    with two_nodes() as nodes, ray_serving(nodes.address, bundle, min_replicas=2) as server:
        load = Load(server.rest, bundle.name, x, expected, CLIENTS)
        begun, noticed_s = time.monotonic(), []
        while time.monotonic() - begun < seconds:
            time.sleep(WHOLE_S)
            killed = time.monotonic()
            nodes.remove()
            noticed_s.append(round(time.monotonic() - killed, 1))
            time.sleep(AWAY_S)
            nodes.add()
        load.stop()
        taken = time.monotonic() - begun
    return {
        "seconds": round(taken, 1),
        "clients": CLIENTS,
        "nodes lost": len(noticed_s),
        "noticed_s": noticed_s,
        "requests": load.requests,
        "retried": load.retried,
        "retries": load.retries,
        "lost": len(load.lost),
        "failures": load.failures,
        "longest_s": round(load.longest_s, 2),
    }


def main() -> int:
    """Measure and print; with --out, keep."""
    parser = argparse.ArgumentParser(description="a node of a Ray cluster is lost under load")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).parent / "sam-export"), "--model", "smt_t", "--fp16"]
        subprocess.run([*command, "--engine", "none", "--out", folder], check=True)
        figures = measured(Path(folder) / "smt_t-fp16-224", arguments.seconds)
    print(json.dumps(figures, indent=1))
    record = {
        "command": " ".join(["python benchmarks/ray_node_loss.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {
            name: version(name) for name in ("sam-deploy", "ray", "onnxruntime", "tritonclient")
        },
        **figures,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(figures["lost"] > 0)


if __name__ == "__main__":
    sys.exit(main())
