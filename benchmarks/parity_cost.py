"""What `sam-parity` costs: time and memory at 1,000 and at 50,000 images, in one run.

    python benchmarks/parity_cost.py [--out FILE.json] [--images N ...]

The bundle is smt_digits in FP16, the images augmented copies of the digits that were held out.
Memory is the most that the whole process held at once, as the operating system counts it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sam_deploy.cpu_info import machine

ROOT = Path(__file__).parent.parent
HELD_OUT = 596
IMAGES = (1_000, 50_000)


def cost(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory of `command`, which must succeed."""
    code = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(time.perf_counter() - start, peak, done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, peak_kib, code_ = done.stdout.split()
    if code_ != "0":
        raise SystemExit(f"{command} ended with {code_}")
    return {"seconds": round(float(seconds), 1), "peak_mb": round(float(peak_kib) / 1024, 1)}


def main() -> int:
    """Measure and print; with --out, keep."""
    parser = argparse.ArgumentParser(description="what sam-parity costs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES))
    arguments = parser.parse_args()
    commands = Path(sys.executable).parent
    costs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copies = -(-max(arguments.images) // HELD_OUT)
        make = [sys.executable, str(ROOT / "examples/digits_data.py"), str(work / "digits")]
        subprocess.run([*make, "--copies", str(copies)], check=True)
        export = [str(commands / "sam-export"), "--model", "smt_digits", "--fp16"]
        subprocess.run([*export, "--engine", "none", "--out", folder], check=True)
        for count in arguments.images:
            command = [str(commands / "sam-parity"), str(work / "smt_digits-fp16-32")]
            data = ["--data", str(work / "digits/test"), "--limit", str(count)]
            costs[f"{count} images"] = cost([*command, *data, "--restart"])
            print(count, costs[f"{count} images"])
    record = {
        "command": " ".join(["python benchmarks/parity_cost.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {name: version(name) for name in ("sam-deploy", "torch", "onnxruntime")},
        "costs": costs,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
