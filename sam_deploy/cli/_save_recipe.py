"""`--save-recipe`: the recipe of an export as a file, with what the export decided."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sam_deploy.errors import InputError
from sam_deploy.recipe import QUANTIZED, Recipe


def check_writable(path: Path, *, force: bool) -> None:
    """Refuse what is no recipe's name, a file that is there, or whose folder is not, before the
    work begins.

    Raises:
        InputError: saying which.
    """
    if path.suffix != ".toml" or path.is_dir():
        raise InputError(f"--save-recipe {path}: expected the name of a .toml file.")
    if path.exists() and not force:
        raise InputError(f"{path} exists. Choose another name, or replace it with --force.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to save the recipe in.")


def save_recipe(asked: Recipe, decided: Recipe, path: Path, data: Path | None = None) -> None:
    """Write `asked` to `path` with the precision, forms, tolerances and quantization of `decided`.

    Where INT8 or FP8 was calibrated on a part of `data`, that folder is named as its calibration.
    """
    from sam_deploy.exporter.recipe_file import write_recipe

    calibration = asked.calibration or (None if data is None else str(data))
    recipe = msgspec.structs.replace(
        asked,
        precision=decided.precision,
        rewrites=decided.rewrites,
        tolerances=decided.tolerances,
        quantization=decided.quantization,
        io_dtype=decided.io_dtype,
        islands=decided.islands,
        calibration=calibration if decided.precision in QUANTIZED else None,
    )
    write_recipe(recipe, path)
