"""Export recipes, and keep a receipt of each: hashes, versions, machine, parity and speed.

    python benchmarks/receipts.py [RECIPE ...]           on the CPU
    python benchmarks/receipts.py --gpu [RECIPE ...]     on a GPU (exit 3 where there is none)

Receipts go to engines/receipts/<bundle>-<cpu|gpu name>.json, bundles to engines/. Speed is the
ratio of eager PyTorch's latency to the bundle's at batch 1, both on that device, in one run.
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
from _race import THREADS, machine, onnx_contestant, race

from sam_deploy.bundle import MODEL
from sam_deploy.cli._progress import StderrProgress
from sam_deploy.errors import EXIT_MACHINE_LACKS
from sam_deploy.exporter import export_recipe, subject_from_recipe
from sam_deploy.exporter.gate import PARITY_BATCH
from sam_deploy.exporter.validation_data import samples_for
from sam_deploy.parity import measure_parity
from sam_deploy.recipe import Recipe, read_recipe, recipes_folder
from sam_deploy.runtime import OnnxRunner
from sam_deploy.runtime.onnx_runner import CPU, CUDA

ROOT = Path(__file__).parent.parent
ROUNDS = 15
Array = np.ndarray[Any, Any]


def lacking_for_gpu() -> str | None:
    """What this machine lacks for `--gpu`, if anything."""
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU here (torch.cuda.is_available() is false)"
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA: install 'sam-deploy[cuda]' in place of [cpu]"
    return None


def make_eager(recipe: Recipe, device: str) -> Callable[[Array], Array]:
    """A contestant: the eager model of `recipe` on `device`, FP16 there if the recipe is."""
    torch.set_num_threads(THREADS)
    subject = subject_from_recipe(recipe)
    half = device == "cuda" and recipe.precision == "fp16"
    module = subject.module.to(device, torch.float16 if half else torch.float32)

    def run(x: Array) -> Array:
        with torch.no_grad():
            given = torch.from_numpy(x).to(device, torch.float16 if half else torch.float32)
            output: torch.Tensor = module(given, *subject.example_inputs[1:])
        return output.float().cpu().numpy()

    return run


def receipt(recipe: Recipe, device: str) -> dict[str, Any]:
    """Export `recipe`, measure it on `device`, and say all that is worth keeping."""
    done = export_recipe(recipe, out=ROOT / "engines", force=True, progress=StderrProgress())
    manifest, subject = done.manifest, subject_from_recipe(recipe)
    provider = CUDA if device == "cuda" else CPU
    parity = manifest.parity[0]
    if device == "cuda":
        parity = measure_parity(
            OnnxRunner(done.bundle / MODEL, [provider]),
            subject.run,
            samples_for(subject, None),
            artefact=MODEL,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            classes=bool(manifest.model.num_classes),
            tolerances=recipe.tolerances,
            batch=recipe.batch or PARITY_BATCH,
        )
    (name,), (output,) = subject.input_names, subject.output_names
    shape = subject.examples()[name].shape
    x = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    times = race(
        {
            "eager": partial(make_eager, recipe, device),
            "bundle": onnx_contestant(done.bundle / MODEL, provider),
        },
        x,
        subject.run({name: x})[output],
        rounds=ROUNDS,
        tolerance=10 * recipe.tolerances.relative_rms,
    )
    where = machine()
    if device == "cuda":
        where["gpu"] = torch.cuda.get_device_name()
    return {
        "bundle": manifest.name,
        "command": " ".join(["python", "benchmarks/receipts.py", *sys.argv[1:]]),
        "machine": where,
        "versions": manifest.versions,
        "weights": manifest.weights,
        "nodes": manifest.graph.nodes,
        "files": manifest.files,
        "parity": parity,
        "passed": parity.passed,
        "batch 1": {
            "eager_ms": times["eager"].median_ms,
            "bundle_ms": times["bundle"].median_ms,
            "ratio": round(times["eager"].median_ms / times["bundle"].median_ms, 2),
        },
    }


def main() -> int:
    """Write the receipts; 1 if a parity failed, 3 if a GPU is asked for and there is none."""
    parser = argparse.ArgumentParser(description="export recipes and keep receipts")
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()
    if arguments.gpu and (lacking := lacking_for_gpu()):
        print(f"error: {lacking}", file=sys.stderr)
        return EXIT_MACHINE_LACKS
    device = "cuda" if arguments.gpu else "cpu"
    failed = False
    for path in arguments.recipes or sorted(recipes_folder().glob("*.toml")):
        record = receipt(read_recipe(path), device)
        failed |= not record["passed"]
        tag = record["machine"].get("gpu", "cpu").lower().replace(" ", "-")
        target = ROOT / "engines" / "receipts" / f"{record['bundle']}-{tag}.json"
        target.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        print(f"{target.relative_to(ROOT)}: {record['batch 1']['ratio']} times eager PyTorch")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
