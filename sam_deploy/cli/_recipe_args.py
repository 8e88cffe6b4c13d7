"""From `sam-export`'s arguments to a recipe: a shipped or given one, overridden flag by flag."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import msgspec

from sam_deploy import architecture
from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.preprocess import Preprocessing
from sam_deploy.quantization import TARGETS, Quantization
from sam_deploy.recipe import (
    QUANTIZED,
    Precision,
    Recipe,
    read_recipe_data,
    recipe_from_dict,
    shipped_recipe,
    size_label,
)

DEFAULT_SIZE = (224, 224)
SAM_GRID = (32, 32)


def recipe_from_args(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the arguments ask for.

    Raises:
        InputError: contradicting arguments, an unknown model, a bad recipe or checkpoint.
    """
    if arguments.recipe is not None:
        if arguments.model is not None:
            raise InputError(
                f"got both a recipe ({arguments.recipe}) and --model {arguments.model}; "
                "the recipe names its model: give one of them"
            )
        base, source = read_recipe_data(arguments.recipe), str(arguments.recipe)
    else:
        base, source = _base(arguments), "the arguments"
    data = _overridden(base, arguments)
    _check_quantizing(data, arguments)
    recipe = recipe_from_dict(data, source)
    if arguments.profile and recipe.batch:
        raise InputError(
            f"--profile is for a dynamic batch, and the batch is fixed at {recipe.batch}: give one."
        )
    return recipe


def _check_quantizing(data: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Refuse flags of INT8 and FP8 where the precision is another: who gives one means them."""
    if data.get("precision", "fp32") in QUANTIZED:
        return
    for flag in ("target", "calibration", "calibration_method"):
        if getattr(arguments, flag) is not None:
            shown = flag.replace("_", "-")
            raise InputError(f"--{shown} is for INT8 and FP8: give --int8 or --fp8, too.")


def image_size(text: str) -> tuple[int, int]:
    """(height, width) from '224' or '192x256'.

    Raises:
        ArgumentTypeError: another form.
    """
    sides = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text)
    if sides is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give 224, or 192x256 for height x width"
        )
    height, width = sides.groups()
    return int(height), int(width or height)


def compute_capabilities(text: str) -> list[str]:
    """["8.0", "8.9"] from '8.0,8.9'.

    Raises:
        ArgumentTypeError: another form.
    """
    if not re.fullmatch(r"[1-9][0-9]?\.[0-9](,[1-9][0-9]?\.[0-9])*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of compute capabilities: give 8.9, or 8.0,8.9,12.0"
        )
    return text.split(",")


def _base(arguments: argparse.Namespace) -> dict[str, Any]:
    model = arguments.model or _model_of(arguments.weights, ema=arguments.ema)
    if model.endswith(".toml"):
        raise InputError(f"{model} is a recipe's path: give it without --model.")
    if ":" in model:
        return {"model": model}
    precision = _precision(arguments) or "fp32"
    shipped = shipped_recipe(model, precision, arguments.image_size)
    if shipped is not None:
        return read_recipe_data(shipped)
    if model != architecture.SAM:
        architecture.variant(model)
    size = SAM_GRID if model == architecture.SAM else DEFAULT_SIZE
    return {"model": model, "precision": precision, "image_size": list(size)}


def _model_of(weights: Path | None, *, ema: bool) -> str:
    if weights is None:
        raise InputError(
            "say what to export: --model NAME, --weights CHECKPOINT, or a recipe's path. "
            f"Known models: {', '.join(architecture.list_models())}."
        )
    from sam_deploy.models.checkpoint import read_checkpoint
    from sam_deploy.models.fit import explain_misfit, infer

    state = read_checkpoint(weights, ema=ema)
    fit = infer(state)
    if fit is None or fit.name is None:
        raise CheckpointError(explain_misfit(weights, state))
    return fit.name


def _overridden(base: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    data = dict(base)
    precision = _precision(arguments)
    if precision is not None and data.get("precision", "fp32") != precision:
        data["precision"] = precision
        data.pop("tolerances", None)  # they are a precision's: another takes its own defaults
        if precision not in QUANTIZED:
            data.pop("quantization", None)
            data.pop("calibration", None)
    given = {
        "weights": arguments.weights and str(arguments.weights),
        "class_names": arguments.class_names and str(arguments.class_names),
        "calibration": arguments.calibration,
        "num_classes": arguments.num_classes,
        "batch": arguments.batch,
        "io_dtype": arguments.io_dtype,
        "allow_islands": arguments.allow_islands,
        "image_size": arguments.image_size and list(arguments.image_size),
    }
    data.update({key: value for key, value in given.items() if value is not None})
    for flag in ("ema", "features", "softmax"):
        if getattr(arguments, flag):
            data[flag] = True
    _merge(data, "sam", {key: getattr(arguments, key) for key in ("dim", "heads", "expand")})
    _merge(
        data, "quantization", {"method": arguments.calibration_method, "target": arguments.target}
    )
    profile = arguments.profile and dict(zip(("min", "opt", "max"), arguments.profile, strict=True))
    _merge(
        data,
        "plans",
        {
            "engines": arguments.engine,
            "profile": profile,
            "compute_capabilities": arguments.compute_capability,
        },
    )
    return _preprocessed(data, arguments)


def _precision(arguments: argparse.Namespace) -> Precision | None:
    """The precision that a flag asks for.

    Raises:
        InputError: two flags ask for two.
    """
    flags: tuple[Precision, ...] = ("fp16", "int8", "fp8")
    asked = [flag for flag in flags if getattr(arguments, flag)]
    if len(asked) > 1:
        raise InputError(f"got --{' and --'.join(asked)}: a bundle has one precision, give one.")
    return asked[0] if asked else None


def _merge(data: dict[str, Any], table: str, given: dict[str, Any]) -> None:
    """Override the lines of a recipe's table that were given."""
    asked = {key: value for key, value in given.items() if value is not None}
    if asked and isinstance(data.get(table, {}), dict):
        data[table] = {**data.get(table, {}), **asked}


def _preprocessed(data: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """`data` with the preprocessing that --mean, --std and --no-crop change."""
    given = {"mean": arguments.mean, "std": arguments.std}
    changed = {key: value for key, value in given.items() if value is not None}
    if arguments.no_crop:
        changed["resize_px"] = None
    if not changed:
        return data
    base, size = data.get("preprocessing"), data.get("image_size")
    if base is None and size is None:
        raise InputError("--mean, --std and --no-crop need images: say their --image-size.")
    if base is None and isinstance(size, list) and _is_size(size):
        base = msgspec.to_builtins(Preprocessing.for_size(*size))
    return {**data, "preprocessing": {**base, **changed} if isinstance(base, dict) else base}


def _is_size(value: list[Any]) -> bool:
    return len(value) == 2 and all(type(v) is int and v > 0 for v in value)


def plan_rows(recipe: Recipe, target: Path, data: Path | None) -> list[tuple[str, str]]:
    """What an export of `recipe` would do, for `--dry-run`."""
    limits = recipe.tolerances
    return [
        ("bundle", str(target)),
        ("model", recipe.model),
        ("weights", _weights(recipe)),
        ("output", _output(recipe)),
        ("precision", f"{recipe.precision}, inputs and outputs {recipe.io_dtype}"),
        ("size", _size(recipe)),
        ("batch", str(recipe.batch or "dynamic")),
        ("data", str(data) if data else _built_in(recipe)),
        *_quantization_rows(recipe, data),
        ("plans", _plans(recipe)),
        (
            "rewrites",
            ", ".join(f"{k} {v}" for k, v in msgspec.to_builtins(recipe.rewrites).items()),
        ),
        (
            "parity",
            f"relative RMS at most {limits.relative_rms:g}, largest error at most "
            f"{limits.max_error:g}, cosine at least {limits.cosine:g}, top-1 agreement at least "
            f"{limits.top1_agreement:g}",
        ),
    ]


def _quantization_rows(recipe: Recipe, data: Path | None) -> list[tuple[str, str]]:
    if recipe.precision not in QUANTIZED:
        return []
    policy = recipe.quantization or Quantization()
    moved = [f"{path} too" for path in policy.quantize] + [f"not {path}" for path in policy.keep]
    samples = recipe.calibration or (f"three in four of {data}" if data else "NOTHING GIVEN")
    return [
        ("quantized", ", ".join([*policy.taken_kinds, *moved]) + f"; for {TARGETS[policy.target]}"),
        ("calibration", f"{policy.method} on {samples}; smoothing {policy.smooth:g}"),
    ]


def _plans(recipe: Recipe) -> str:
    plans = recipe.plans
    profile = f"batch {plans.profile.min} to {plans.profile.max}, tuned for {plans.profile.opt}"
    targets = ", ".join(plans.compute_capabilities)
    parts = [", ".join(plans.engines), profile if recipe.batch is None else ""]
    parts.append(f"compute capabilities {targets}" if targets else "")
    return "; ".join(part for part in parts if part)


def _size(recipe: Recipe) -> str:
    if recipe.image_size is None:
        return "that of the example inputs"
    height, width = recipe.image_size
    return f"{size_label(recipe.image_size)} (height {height}, width {width})"


def _built_in(recipe: Recipe) -> str:
    if recipe.is_sam:
        return "seeded normal tokens"
    if recipe.is_own and recipe.image_size is None and recipe.preprocessing is None:
        return "the example inputs"
    return "built-in images"


def _weights(recipe: Recipe) -> str:
    if recipe.weights is None:
        return "as the factory makes them" if recipe.is_own else "random, seeded"
    return recipe.weights + (", EMA copy" if recipe.ema else "")


def _output(recipe: Recipe) -> str:
    if recipe.is_own:
        return ", ".join(recipe.output_names) or "what the network returns"
    if recipe.is_sam:
        return "tokens"
    if recipe.features:
        return "four feature maps"
    classes = "" if recipe.num_classes is None else f" of {recipe.num_classes} classes"
    return ("probabilities" if recipe.softmax else "logits") + classes
