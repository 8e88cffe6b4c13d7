"""Export recipes, verify the bundles, and keep a receipt of each.

    python benchmarks/receipts.py [RECIPE ...]      (on a GPU: benchmarks/gpu.py)

Receipts go to engines/receipts/<bundle>-cpu.json, bundles to engines/; what `sam-parity --against`
reads. The digits are calibrated on their training images and verified on augmented copies of those
held out; the others, whose weights are random, on built-in samples.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from sam_deploy.bundle import read_bundle
from sam_deploy.cli._progress import StderrProgress
from sam_deploy.exporter import Request, export_recipe
from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import QUANTIZED, Recipe, read_recipe, recipes_folder
from sam_deploy.verification import Asked, verify
from sam_deploy.verification.receipt import Receipt, receipt_of, receipt_to_json

ROOT = Path(__file__).parent.parent
COPIES = 10  # of each of the digits that were held out


def receipt(recipe: Recipe, digits: Path) -> Receipt:
    """Export `recipe`, verify the bundle, and say all that is worth keeping.

    Raises:
        CheckFailed: it did not pass.
    """
    trained = recipe.model == "smt_digits"
    if recipe.precision in QUANTIZED:
        calibration = str(digits / "train") if trained else SYNTHETIC
        recipe = msgspec.structs.replace(recipe, calibration=calibration)
    data = digits / "test" if trained else None
    done = export_recipe(
        recipe,
        out=ROOT / "engines",
        request=Request(force=True, data=data),
        progress=StderrProgress(),
    )
    weights = None if recipe.weights is None else Path(recipe.weights)
    asked = Asked(weights=weights, data=data, latency=True)
    result = verify(done.bundle, asked, progress=StderrProgress())
    command = " ".join(["python benchmarks/receipts.py", *sys.argv[1:]])
    return receipt_of(result, read_bundle(done.bundle), command)


def main() -> int:
    """Write the receipts."""
    parser = argparse.ArgumentParser(description="export recipes and keep receipts")
    parser.add_argument("recipes", nargs="*", type=Path)
    arguments = parser.parse_args()
    recipes = [read_recipe(p) for p in arguments.recipes or sorted(recipes_folder().glob("*.toml"))]
    with tempfile.TemporaryDirectory() as folder:
        digits = Path(folder) / "digits"
        make = [sys.executable, str(ROOT / "examples/digits_data.py"), str(digits)]
        subprocess.run([*make, "--copies", str(COPIES)], check=True)
        for recipe in recipes:
            kept = receipt(recipe, digits)
            path = ROOT / "engines" / "receipts" / f"{kept.bundle}-cpu.json"
            path.write_text(receipt_to_json(kept), encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {kept.latency.ratio} times eager PyTorch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
