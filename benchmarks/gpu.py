"""What only a GPU can show: parity and latency there of every engine, with a receipt a bundle.

    python benchmarks/gpu.py [--no-export] [RECIPE ...]

Each bundle is exported with its plans (`--no-export` takes it from engines/ as it is) and runs on
ONNX Runtime's CUDA provider, TensorRT and TensorRT-RTX, in turn with PyTorch in FP16: eager,
compiled, compiled with CUDA graphs, by Torch-TensorRT where that is installed. Latency is from a
numpy array to a numpy array, the copies included. What cannot run here is recorded with its
reason and stops nothing else. Receipts go to engines/receipts/<bundle>-<gpu>.json. Exit codes: 1
if a parity failed, 3 without a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from _gpu_engines import ENGINES, alone, measured_parity
from _receipt import RECEIPTS, ROOT, described, keep

from sam_deploy.bundle import read_bundle
from sam_deploy.cpu_info import machine
from sam_deploy.errors import EXIT_CHECK_FAILED, EXIT_MACHINE_LACKS, CheckFailed, SamDeployError
from sam_deploy.manifest import Manifest
from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import QUANTIZED, Recipe, read_recipe, recipes_folder

BATCHES = (1, 8, 64)
ROUNDS = 15


def lacking() -> str | None:
    """What this machine lacks, if anything."""
    try:
        import torch
    except ImportError as error:
        return f"PyTorch, which everything is held against, is not here: {error}"
    if not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU here (torch.cuda.is_available() is false)"
    return None


def gpu_machine() -> dict[str, str]:
    """The machine with its GPU: name, compute capability, driver, and PyTorch's CUDA."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
        driver = done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return {
        **machine(),
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "driver": driver,
        "cuda": str(torch.version.cuda),
    }


def default_recipes() -> list[Path]:
    """smt_t in every precision that is shipped for GPUs, and the SAM module."""
    folder = recipes_folder()
    found = [*sorted(folder.glob("smt_t-*-224.toml")), *sorted(folder.glob("sam-fp16-*.toml"))]
    return [path for path in found if not read_recipe(path).is_for_cpu]


def exported(recipe: Recipe, *, anew: bool) -> Path:
    """The recipe's bundle, with plans of the flavours that are installed.

    Raises:
        SamDeployError: it cannot be made, or is not there.
    """
    bundle = ROOT / "engines" / recipe.name
    if anew:
        from sam_deploy.cli._progress import StderrProgress
        from sam_deploy.exporter import Request, export_recipe

        if recipe.precision in QUANTIZED and recipe.calibration is None:
            recipe = msgspec.structs.replace(recipe, calibration=SYNTHETIC)
        export_recipe(
            recipe, out=bundle.parent, request=Request(force=True), progress=StderrProgress()
        )
    return bundle


def parities(bundle: Path, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Of each engine its parity, or why there is none."""
    found: dict[str, dict[str, Any]] = {}
    for name, backend in ENGINES.items():
        try:
            ran_on, report = alone(measured_parity, bundle, backend, recipe)
            found[name] = {"backend": ran_on, "parity": report, "passed": report.passed}
        except CheckFailed as error:
            found[name] = {"reason": str(error), "passed": False}
        except RuntimeError as error:
            found[name] = {"reason": str(error)}
        outcome = found[name].get("reason") or ("passed" if found[name]["passed"] else "FAILED")
        print(f"  parity, {name}: {outcome}", file=sys.stderr)
    return found


def latencies(bundle: Path, manifest: Manifest, engines: list[str], batch: int) -> dict[str, Any]:
    """Of each engine and of PyTorch the latency at `batch`, or why there is none."""
    from sam_deploy.bench.gpu_peers import gpu_contestants
    from sam_deploy.bench.ours import bundle_contestants
    from sam_deploy.bench.race import race
    from sam_deploy.bench.samples import example_of
    from sam_deploy.cli._progress import StderrProgress
    from sam_deploy.verification import Asked
    from sam_deploy.verification.bundle_reference import bundle_reference

    asked = Asked()
    example = example_of(bundle_reference(manifest, asked), asked, batch)
    peers, missing = gpu_contestants(bundle, asked)
    ours = bundle_contestants(bundle, manifest, [ENGINES[name] for name in engines])
    names = {f"{manifest.name} on {backend}": name for name, backend in ENGINES.items()}
    entries, left_out = race([*peers, *ours], {batch: example}, ROUNDS, StderrProgress())
    return {
        **{names.get(entry.name, entry.name): entry.timings[0] for entry in entries},
        **{names.get(o.name, o.name): {"reason": o.reason} for o in [*missing, *left_out]},
    }


def receipt(recipe: Recipe, *, anew: bool) -> dict[str, Any]:
    """Everything of one recipe on this GPU.

    Raises:
        SamDeployError: there is no bundle.
    """
    bundle = exported(recipe, anew=anew)
    manifest = read_bundle(bundle)
    engines = parities(bundle, recipe)
    running = [name for name, outcome in engines.items() if "reason" not in outcome]
    record = {**described(manifest, gpu_machine()), "engines": engines}
    for batch in [recipe.batch] if recipe.batch else BATCHES:
        try:
            record[f"batch {batch}"] = latencies(bundle, manifest, running, batch)
        except Exception as error:  # the receipt keeps what was measured before
            record[f"batch {batch}"] = {"reason": f"{type(error).__name__}: {error}"}
    return record


def main() -> int:
    """Write the receipts; see the top for the exit codes."""
    parser = argparse.ArgumentParser(description="parity and latency on this GPU, with receipts")
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("--no-export", action="store_true", help="take the bundles as they are")
    parser.add_argument("--out", type=Path, default=RECEIPTS, help="where the receipts go")
    arguments = parser.parse_args()
    if reason := lacking():
        print(f"error: {reason}", file=sys.stderr)
        return EXIT_MACHINE_LACKS
    failed = False
    for path in arguments.recipes or default_recipes():
        print(path.name, file=sys.stderr)
        try:
            record = receipt(read_recipe(path), anew=not arguments.no_export)
        except (SamDeployError, ImportError) as error:
            print(f"  left out: {error}", file=sys.stderr)
            failed = True
            continue
        kept = keep(record, record["machine"]["gpu"], arguments.out)
        failed |= any(outcome.get("passed") is False for outcome in record["engines"].values())
        print(kept)
    return EXIT_CHECK_FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
