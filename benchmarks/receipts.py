"""Export recipes, and keep a receipt of each: hashes, versions, machine, parity and speed.

    python benchmarks/receipts.py [RECIPE ...]      (on a GPU: benchmarks/gpu.py)

Receipts go to engines/receipts/<bundle>-cpu.json, bundles to engines/. Speed is the ratio of eager
PyTorch's latency to the bundle's at batch 1, both on this CPU, in one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from _race import THREADS, onnx_contestant, race
from _receipt import ROOT, described, keep

from sam_deploy.bundle import MODEL
from sam_deploy.cli._progress import StderrProgress
from sam_deploy.cpu_info import machine
from sam_deploy.exporter import Request, export_recipe, subject_from_recipe
from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import QUANTIZED, Recipe, read_recipe, recipes_folder

ROUNDS = 15
Array = np.ndarray[Any, Any]


def make_eager(recipe: Recipe) -> Callable[[Array], Array]:
    """A contestant: the eager FP32 model of `recipe`."""
    torch.set_num_threads(THREADS)
    subject = subject_from_recipe(recipe)
    (name,), (output,) = subject.input_names, subject.output_names
    return lambda x: subject.run({name: x})[output]


def receipt(recipe: Recipe) -> dict[str, Any]:
    """Export `recipe`, time it, and say all that is worth keeping. INT8 and FP8 are calibrated on
    made-up images: so are the weights that are not given.
    """
    if recipe.precision in QUANTIZED:
        recipe = msgspec.structs.replace(recipe, calibration=SYNTHETIC)
    done = export_recipe(
        recipe, out=ROOT / "engines", request=Request(force=True), progress=StderrProgress()
    )
    manifest, subject = done.manifest, subject_from_recipe(recipe)
    (name,), (output,) = subject.input_names, subject.output_names
    shape = subject.examples()[name].shape
    x = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    times = race(
        {
            "eager": partial(make_eager, recipe),
            "bundle": onnx_contestant(done.bundle / MODEL),
        },
        x,
        subject.run({name: x})[output],
        rounds=ROUNDS,
        tolerance=10 * recipe.tolerances.relative_rms,
    )
    parity = manifest.parity[0]
    return {
        **described(manifest, machine()),
        "parity": parity,
        "passed": parity.passed,
        "batch 1": {
            "eager_ms": times["eager"].median_ms,
            "bundle_ms": times["bundle"].median_ms,
            "ratio": round(times["eager"].median_ms / times["bundle"].median_ms, 2),
        },
    }


def main() -> int:
    """Write the receipts; 1 if a parity failed."""
    parser = argparse.ArgumentParser(description="export recipes and keep receipts")
    parser.add_argument("recipes", nargs="*", type=Path)
    arguments = parser.parse_args()
    failed = False
    for path in arguments.recipes or sorted(recipes_folder().glob("*.toml")):
        record = receipt(read_recipe(path))
        failed |= not record["passed"]
        kept = keep(record, "cpu")
        print(f"{kept.relative_to(ROOT)}: {record['batch 1']['ratio']} times eager PyTorch")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
