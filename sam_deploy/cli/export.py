"""`sam-export`: from a PyTorch SMT to a bundle that is proven to be the same model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sam_deploy.architecture import list_models
from sam_deploy.bundle import bundle_path, check_target
from sam_deploy.cli._rebuild import rebuild_bundle
from sam_deploy.cli._recipe_args import (
    compute_capabilities,
    image_size,
    plan_rows,
    recipe_from_args,
)
from sam_deploy.cli._run import exit_with, parser, print_json, run
from sam_deploy.cli._save_recipe import check_writable, save_recipe
from sam_deploy.cli._tables import bundle_rows, print_rows
from sam_deploy.errors import InputError
from sam_deploy.plans import EngineChoice
from sam_deploy.quantization import SYNTHETIC, CalibrationMethod, QuantizationTarget
from sam_deploy.recipe import shipped_models

if TYPE_CHECKING:
    from sam_deploy.exporter import Request

_TUNE_S = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(_parser(), _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    if arguments.list_models:
        names = sorted({*list_models(), *shipped_models()})
        print_json(names) if arguments.json else print_rows([(name, "") for name in names])
        return
    if arguments.rebuild is not None:
        rebuild_bundle(arguments, _parser())
        return
    recipe = recipe_from_args(arguments)
    if arguments.save_recipe is not None:
        check_writable(arguments.save_recipe, force=arguments.force)
    if arguments.dry_run:
        usual = recipe.named("best") if arguments.ship == "best" else recipe.name
        target = bundle_path(arguments.out, usual if arguments.name is None else arguments.name)
        check_target(target, force=arguments.force)
        for path in (recipe.weights, recipe.class_names, arguments.data, recipe.calibration):
            if path not in (None, SYNTHETIC) and not Path(path).exists():
                raise InputError(f"no such file or folder: {path}.")
        if recipe.weights is not None or recipe.is_own:
            from sam_deploy.reference import subject_from_recipe

            subject_from_recipe(recipe)  # what does not fit should show now
        if arguments.json:
            print_json({"bundle": str(target), "recipe": recipe})
        else:
            print_rows(plan_rows(recipe, target, arguments.data))
        return
    # Before torch is loaded: its waiting threads must not spin on the cores that ONNX Runtime's
    # want, on a busy machine, or on one with fewer cores than it shows (a container's quota).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from sam_deploy.cli._progress import StderrProgress
    from sam_deploy.exporter import export_recipe

    done = export_recipe(
        recipe,
        out=arguments.out,
        name=arguments.name,
        request=_request(arguments),
        progress=StderrProgress(),
    )
    if arguments.save_recipe is not None:
        save_recipe(recipe, done.manifest.recipe, arguments.save_recipe, arguments.data)
    if arguments.json:
        print_json({"bundle": str(done.bundle), "manifest": done.manifest})
    else:
        print_rows(bundle_rows(done.bundle, done.manifest))


def _request(arguments: argparse.Namespace) -> Request:
    from sam_deploy.exporter import Request

    return Request(
        force=arguments.force,
        data=arguments.data,
        sensitivity=arguments.sensitivity,
        max_drop=arguments.max_drop,
        ship_best=arguments.ship == "best",
        tune_s=_tune_s(arguments),
    )


def _tune_s(arguments: argparse.Namespace) -> float | None:
    """Seconds to look for the fastest forms; None where that is not asked for."""
    seconds: float | None = arguments.tune_seconds
    if not arguments.tune:
        if seconds is not None:
            raise InputError("--tune-seconds is how long --tune may look: give that, too.")
        return None
    return _TUNE_S if seconds is None else seconds


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "Export a PyTorch SMT, or the SAM module, to a verified bundle.",
        prog="sam-export",
        epilog="Exit codes: 0 done, 1 a check failed, 2 bad input, 3 this machine lacks something, "
        "70 our bug, 130 interrupted.",
    )
    made.add_argument(
        "recipe", nargs="?", type=Path, help="a recipe (TOML); flags override its lines"
    )
    what = made.add_argument_group("what")
    what.add_argument(
        "--model", help="smt_t, smt_s, smt_b, smt_l, sam, or package.module:factory of your own"
    )
    what.add_argument("--weights", type=Path, help="checkpoint; without it, seeded random weights")
    what.add_argument("--ema", action="store_true", help="take the checkpoint's averaged copy")
    what.add_argument("--num-classes", type=int, help="the head's classes (with random weights)")
    what.add_argument("--class-names", type=Path, help="file with a class name a line")
    what.add_argument("--features", action="store_true", help="the four feature maps, no head")
    what.add_argument("--softmax", action="store_true", help="probabilities instead of logits")
    what.add_argument("--dim", type=int, help="channels of `sam` (default 256)")
    what.add_argument("--heads", type=int, help="heads of `sam` (default 4)")
    what.add_argument("--expand", type=int, help="expand ratio of `sam` (default 2)")
    how = made.add_argument_group("how")
    how.add_argument("--fp16", action="store_true", help="FP16 (default FP32)")
    how.add_argument("--int8", action="store_true", help="INT8 layers, FP16 beside them")
    how.add_argument("--fp8", action="store_true", help="FP8 (E4M3) layers, FP16 beside them")
    how.add_argument("--io-dtype", choices=("fp32", "fp16"), help="dtype of inputs and outputs")
    how.add_argument(
        "--image-size",
        type=image_size,
        metavar="224|192x256",
        help="height x width in pixels; of `sam` in tokens",
    )
    how.add_argument("--batch", type=int, help="a fixed batch size (default: dynamic)")
    how.add_argument(
        "--tune",
        action="store_true",
        help="measure which of the rewrites' equal forms is fastest on this machine's CPU",
    )
    how.add_argument(
        "--tune-seconds",
        type=float,
        metavar="S",
        help=f"how long to look at most, with --tune (default: {_TUNE_S:g})",
    )
    how.add_argument(
        "--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="of the training images, 0..1"
    )
    how.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"))
    how.add_argument(
        "--no-crop", action="store_true", help="resize images straight to the size, without a crop"
    )
    how.add_argument(
        "--allow-islands",
        type=float,
        metavar="PART",
        help="the part of all multiply-adds that FP16 may leave in FP32 (default 0.05)",
    )
    how.add_argument(
        "--data", type=Path, help="what parity is measured on: a folder of images, or an .npz"
    )
    quantized = made.add_argument_group("INT8 and FP8")
    quantized.add_argument(
        "--target",
        choices=get_args(QuantizationTarget),
        help="what INT8 is laid out for: tensorrt with FP16 beside it, or cpu with FP32 beside it "
        "(default: tensorrt)",
    )
    quantized.add_argument(
        "--calibration",
        metavar="DIR|FILE.npz|synthetic",
        help="what ranges are measured on (default: three in four of --data)",
    )
    quantized.add_argument(
        "--calibration-method",
        choices=get_args(CalibrationMethod),
        help="how a range is chosen (default: mse)",
    )
    quantized.add_argument(
        "--sensitivity", action="store_true", help="measure what each group of layers costs"
    )
    quantized.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="keep the costliest layers in FP16 until top-1 agreement with FP32 drops by no more "
        "(without classes: until the relative RMS is as many per cent)",
    )
    quantized.add_argument(
        "--ship",
        choices=("asked", "best"),
        default="asked",
        help="best: export in floats where INT8 or FP8 is not faster on what runs here",
    )
    quantized.add_argument(
        "--save-recipe", type=Path, metavar="FILE.toml", help="write the recipe as it was decided"
    )
    plans = made.add_argument_group("TensorRT plans")
    plans.add_argument(
        "--engine",
        action="append",
        choices=get_args(EngineChoice),
        help="repeatable; auto (default) is what is installed and can build here",
    )
    plans.add_argument(
        "--rebuild",
        type=Path,
        metavar="BUNDLE",
        help="build the plans that a bundle lacks for this machine (needs no torch)",
    )
    plans.add_argument(
        "--profile",
        type=int,
        nargs=3,
        metavar=("MIN", "OPT", "MAX"),
        help="batch sizes of a plan for a dynamic batch (default: 1 8 32)",
    )
    plans.add_argument(
        "--compute-capability",
        type=compute_capabilities,
        metavar="8.0,8.9",
        help="the GPUs that TensorRT-RTX builds for (default: its own)",
    )
    where = made.add_argument_group("where")
    where.add_argument("--out", type=Path, default=Path("engines"), help="default: engines/")
    where.add_argument("--name", help="the bundle's folder (default: from the recipe)")
    where.add_argument("--force", action="store_true", help="replace a bundle that is there")
    made.add_argument("--dry-run", action="store_true", help="print the plan, do nothing")
    made.add_argument("--list-models", action="store_true", help="print the known models")
    return made


if __name__ == "__main__":
    exit_with(main)
