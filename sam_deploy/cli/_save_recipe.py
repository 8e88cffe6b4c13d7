"""`--save-recipe`: the recipe of an export as a file, with what the export decided."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from sam_deploy.errors import InputError
from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import Recipe


def check_writable(path: Path, *, force: bool) -> None:
    """Refuse a file that is there, or whose folder is not, before the work begins.

    Raises:
        InputError: saying which.
    """
    if path.exists() and not force:
        raise InputError(f"{path} exists. Choose another name, or replace it with --force.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to save the recipe in.")


def save_recipe(asked: Recipe, decided: Recipe, path: Path) -> None:
    """Write `asked` to `path` with the precision, tolerances and quantization of `decided`.

    Its paths become relative to the file; lines with default values are left out.
    """
    import tomli_w

    recipe = msgspec.structs.replace(
        asked,
        precision=decided.precision,
        tolerances=decided.tolerances,
        quantization=decided.quantization,
        io_dtype=decided.io_dtype,
        islands=decided.islands,
        calibration=asked.calibration if decided.quantization or decided.calibration else None,
    )
    data = _plain(recipe)
    for key in ("weights", "class_names", "calibration"):
        if key in data and data[key] != SYNTHETIC:
            data[key] = os.path.relpath(data[key], path.parent)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(tomli_w.dumps(data), encoding="utf-8")
    partial.replace(path)


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields that are not their defaults, as TOML has them."""
    data = {}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if value is not None and value != default:
            data[field.name] = (
                _plain(value) if isinstance(value, msgspec.Struct) else msgspec.to_builtins(value)
            )
    return data
