"""How long importing takes, and loading a bundle: the median of fresh processes.

    python benchmarks/import_time.py [--bundle BUNDLE] [--runs N] [--out FILE.json]

Without a bundle smt_t is exported in FP16. Loading is import, the check of every file's hash, the
session on ONNX Runtime's CPU provider and the run on the bundle's example.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from sam_deploy.cpu_info import machine

_CODE = "import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
_MODULES = ("numpy", "sam_deploy", "sam_deploy.runtime")


def took_ms(code: str, runs: int) -> float:
    """Median over `runs` processes of the time that `code` takes, in ms."""
    command = [sys.executable, "-c", _CODE.format(code=code)]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(runs + 1)]
    return statistics.median(times[1:]) * 1e3  # the first run fills the file cache


def main() -> None:
    """Print a line each; with --out, keep."""
    parser = argparse.ArgumentParser(description="import and load times")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle
        if bundle is None:
            command = [str(Path(sys.executable).parent / "sam-export"), "--model", "smt_t"]
            options = ["--fp16", "--engine", "none", "--out", folder]
            subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
            bundle = Path(folder) / "smt_t-fp16-224"
        found = {f"import {name}": took_ms(f"import {name}", arguments.runs) for name in _MODULES}
        load = f"import sam_deploy; sam_deploy.load({str(bundle)!r}, 'cpu')"
        found[f"import and load {bundle.name}"] = took_ms(load, arguments.runs)
    for what, ms in found.items():
        print(f"{what:32} {ms:7.1f} ms")
    if arguments.out:
        record = {
            "command": " ".join(["python benchmarks/import_time.py", *sys.argv[1:]]),
            "machine": machine(),
            "versions": {name: version(name) for name in ("sam-deploy", "onnxruntime", "numpy")},
            "ms": {what: round(ms, 1) for what, ms in found.items()},
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
