"""How what a bundle costs grows on this CPU: with the batch, the resolution, the model, and the
images that it is calibrated on.

    python benchmarks/growth.py [--out benchmarks/results/FILE.json]

smt_t with random weights, for the models also its larger ones: exports in a process each, and
`sam-bench` on ONNX Runtime's CPU provider for a batch at a time: the memory is then that batch's.
Half an hour on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from _spent import script, spent, write_images

from sam_deploy.cpu_info import machine

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES_PX = (128, 224, 384, 512, 1024)
IMAGES = (32, 128, 512)
MODELS = ("smt_t", "smt_s", "smt_b", "smt_l")
ROUNDS = 5


def ran(bundle: Path, batch: int) -> dict[str, float]:
    """Latency and memory of `bundle` at one batch."""
    command = [script("sam-bench"), str(bundle), "--no-peers", "--json"]
    result = spent([*command, "--batch", str(batch), "--rounds", str(ROUNDS)]).json
    (entry,) = (one for one in result["entries"] if one["name"].endswith(" on cpu"))
    ms = entry["timings"][0]["median_ms"]
    return {"ms": ms, "load_s": entry["load_s"], "peak_mb": round(entry["peak_bytes"] / 1e6)}


def exported(out: Path, *flags: str, model: str = "smt_t") -> dict[str, float]:
    """What an export with `flags` took, and how far its bundle is from PyTorch."""
    command = [script("sam-export"), "--model", model, "--engine", "none", "--json"]
    found = spent([*command, "--out", str(out), *flags])
    (report,) = found.json["manifest"]["parity"]
    return {
        "seconds": round(found.seconds, 1),
        "peak_mb": round(found.peak_bytes / 1e6),
        "relative_rms": report["outputs"][0]["relative_rms"],
        "onnx_mb": round(found.json["manifest"]["files"]["model.onnx"]["bytes"] / 1e6),
    }


def measured(scratch: Path) -> dict[str, dict[str, Any]]:
    """Every curve."""
    curves: dict[str, dict[str, Any]] = {"sizes": {}, "batches": {}, "images": {}, "models": {}}

    def keep(curve: str, point: int | str, found: dict[str, Any]) -> None:
        curves[curve][str(point)] = found
        print(f"{curve}, {point}: {found}", file=sys.stderr)

    for size in SIZES_PX:
        cost = exported(scratch, "--image-size", str(size))
        keep("sizes", size, {"export": cost, **ran(scratch / f"smt_t-fp32-{size}", 1)})
    for batch in BATCHES:
        keep("batches", batch, ran(scratch / "smt_t-fp32-224", batch))
    for count in IMAGES:
        images = write_images(scratch / f"images-{count}", count)
        flags = ["--int8", "--target", "cpu", "--calibration", images]
        keep("images", count, exported(scratch, *flags, "--name", f"int8-{count}"))
    for model in MODELS:
        keep("models", model, exported(scratch / "models", model=model))
    return curves


def main() -> int:
    """Write the curves; see the top."""
    parser = argparse.ArgumentParser(description="how what a bundle costs grows on this CPU")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
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
