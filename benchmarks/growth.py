"""How what a bundle costs grows on this CPU: with the batch, the resolution and calibration images.

    python benchmarks/growth.py [--out benchmarks/results/FILE.json]

smt_t with random weights on ONNX Runtime's CPU provider, a process for each point: the median of
rounds, and the most memory that the process held. Half an hour on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from sam_deploy.cpu_info import machine

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES_PX = (128, 224, 384, 512, 1024)
IMAGES = (32, 128, 512)
ROUNDS = 7


def point(bundle: str, batch: int) -> dict[str, float]:
    """One point, measured in this process: loading, a median, and memory."""
    import numpy as np

    from sam_deploy.runtime import load

    engine = load(bundle, "cpu")
    loaded_bytes = peak_bytes()
    (spec,) = engine.manifest.inputs
    dims = [batch if isinstance(dim, str) else dim for dim in spec.dims]
    x = np.random.RandomState(0).standard_normal(dims).astype(np.float32)
    times_ms = []
    for _ in range(2 + ROUNDS):
        begun = time.perf_counter()
        engine(x)
        times_ms.append(1e3 * (time.perf_counter() - begun))
    return {
        "ms": round(statistics.median(times_ms[2:]), 2),
        "loaded_mb": round(loaded_bytes / 1e6),
        "peak_mb": round(peak_bytes() / 1e6),
    }


def peak_bytes() -> int:
    """The most memory that this process held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) << 10


def alone(bundle: Path, batch: int) -> dict[str, float]:
    """`point` in a process of its own."""
    command = [sys.executable, __file__, "--point", str(bundle), str(batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def exported(out: Path, *flags: str) -> dict[str, float]:
    """What an export with `flags` took, and how far its bundle is from PyTorch."""
    command = [str(Path(sys.executable).parent / "sam-export"), "--model", "smt_t", "--json"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--engine", "none", "--out", str(out), *flags], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"sam-export {' '.join(flags)} failed")
    (report,) = said["manifest"]["parity"]
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_mb": round((usage.ru_maxrss << 10) / 1e6),
        "relative_rms": report["outputs"][0]["relative_rms"],
    }


def measured(scratch: Path) -> dict[str, Any]:
    """Every curve."""
    sizes: dict[str, Any] = {}
    for size in SIZES_PX:
        cost = exported(scratch, "--image-size", str(size))
        sizes[str(size)] = {"export": cost, **alone(scratch / f"smt_t-fp32-{size}", 1)}
        print(f"{size} px: {sizes[str(size)]}", file=sys.stderr)
    batches = {}
    for batch in BATCHES:
        batches[str(batch)] = alone(scratch / "smt_t-fp32-224", batch)
        print(f"batch {batch}: {batches[str(batch)]}", file=sys.stderr)
    images = {}
    for count in IMAGES:
        folder = scratch / f"images-{count}"
        folder.mkdir()
        write_images(folder, count)
        flags = ["--int8", "--target", "cpu", "--calibration", str(folder)]
        images[str(count)] = exported(scratch, *flags, "--name", f"int8-{count}")
        print(f"{count} images: {images[str(count)]}", file=sys.stderr)
    return {"sizes": sizes, "batches": batches, "images": images}


def write_images(folder: Path, count: int) -> None:
    """`count` made-up images in `folder`, other than those that parity takes."""
    from sam_deploy.synthetic import synthetic_images

    for index, image in enumerate(synthetic_images(count, seed=1)):
        image.save(folder / f"{index:04}.png")


def main() -> int:
    """Write the curves; see the top."""
    parser = argparse.ArgumentParser(description="how what a bundle costs grows on this CPU")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--point", nargs=2, metavar=("BUNDLE", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(point(arguments.point[0], int(arguments.point[1]))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        curves = measured(Path(scratch))
    record = {
        "command": " ".join(["python", "benchmarks/growth.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {name: version(name) for name in ("sam-deploy", "torch", "onnxruntime")},
        **curves,
    }
    text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
