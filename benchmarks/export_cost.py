"""What a whole `sam-export` costs: seconds from start to end, and the most memory it held.

    python benchmarks/export_cost.py [--out benchmarks/results/FILE.json] [CASE ...]

A process for each case, one after the other, on an otherwise idle machine. Seconds include starting
Python and importing torch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sam_deploy.cpu_info import machine
from sam_deploy.synthetic import synthetic_images


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


def write_images(folder: Path, count: int) -> str:
    """`count` made-up images in `folder`, other than those that parity takes."""
    folder.mkdir()
    for index, image in enumerate(synthetic_images(count, seed=1)):
        image.save(folder / f"{index:04}.png")
    return str(folder)


def cost(case: Case) -> dict[str, Any]:
    """Run the command, and say what it took."""
    command = shutil.which("sam-export", path=str(Path(sys.executable).parent))
    assert command is not None
    with tempfile.TemporaryDirectory() as out:
        argv = [command, *case.arguments, "--out", out, "--json"]
        if case.images:
            argv += ["--calibration", write_images(Path(out, "images"), case.images)]
        start = time.perf_counter()
        with Path(out, "result.json").open("w") as result:
            child = os.posix_spawn(
                command, argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, result.fileno(), 1)]
            )
            _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"{' '.join(argv)} failed")
        parity = json.loads(Path(out, "result.json").read_text())["manifest"]["parity"]
    gb = usage.ru_maxrss * 1024 / 1e9  # Linux counts in KiB
    return {
        "command": " ".join(["sam-export", *case.arguments])
        + (f" --calibration {case.images} images" if case.images else ""),
        "seconds": round(seconds, 1),
        "at_most_s": case.at_most_s,
        "peak_gb": round(gb, 2),
        "at_most_gb": case.at_most_gb,
        "kept": seconds <= case.at_most_s and gb <= case.at_most_gb,
        "parity": parity[0]["outputs"],
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
