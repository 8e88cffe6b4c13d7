"""What a whole `sam-export` costs: seconds from start to end, and the most memory it held.

    python benchmarks/export_cost.py [--out benchmarks/results/FILE.json] [CASE ...]

A process for each case, one after the other, on an otherwise idle machine. Seconds include starting
Python and importing torch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from _spent import script, spent, write_images

from sam_deploy.cpu_info import machine


class Case(NamedTuple):
    """What is exported, and what it may cost on 2 cores; `images` are made for calibration."""

    arguments: list[str]
    at_most_s: float
    at_most_gb: float
    images: int = 0


CASES = {
    "smt_t": Case(["--model", "smt_t", "--fp16"], 45, 2.5),
    "smt_l at 384": Case(["--model", "smt_l", "--fp16", "--image-size", "384"], 360, 8),
    "smt_b INT8, 512 images": Case(["--model", "smt_b", "--int8"], 1200, 4, images=512),
}


def cost(case: Case) -> dict[str, Any]:
    """Run the command, and say what it took."""
    with tempfile.TemporaryDirectory() as out:
        command = [script("sam-export"), *case.arguments, "--out", out, "--json"]
        if case.images:
            command += ["--calibration", write_images(Path(out, "images"), case.images)]
        found = spent(command)
    gb = found.peak_bytes / 1e9
    return {
        "command": " ".join(["sam-export", *case.arguments])
        + (f" --calibration {case.images} images" if case.images else ""),
        "seconds": round(found.seconds, 1),
        "at_most_s": case.at_most_s,
        "peak_gb": round(gb, 2),
        "at_most_gb": case.at_most_gb,
        "kept": found.seconds <= case.at_most_s and gb <= case.at_most_gb,
        "parity": found.json["manifest"]["parity"][0]["outputs"],
    }


def main() -> None:
    """Measure the cases, print them, and write them with `--out`."""
    parser = argparse.ArgumentParser(description="time and memory of whole exports")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    costs = {name: cost(CASES[name]) for name in arguments.cases or CASES}
    for name, found in costs.items():
        print(
            f"{name}: {found['seconds']} s (at most {found['at_most_s']}), "
            f"{found['peak_gb']} GB (at most {found['at_most_gb']})"
        )
    if arguments.out:
        record = {
            "command": " ".join(["python", "benchmarks/export_cost.py", *sys.argv[1:]]),
            "machine": machine(),
            "versions": {name: version(name) for name in ("torch", "onnxruntime", "sam-deploy")},
            "costs": costs,
        }
        encoded = msgspec.json.format(msgspec.json.encode(record), indent=1)
        arguments.out.write_bytes(encoded + b"\n")


if __name__ == "__main__":
    main()
