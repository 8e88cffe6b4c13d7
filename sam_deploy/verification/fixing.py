"""A bundle that failed gets the recipe that passes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from sam_deploy.bundle import read_bundle
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.exporter import Request
from sam_deploy.exporter.calibration_data import Data, data_for
from sam_deploy.exporter.lowered import lowered
from sam_deploy.manifest import Manifest
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.progress import Progress
from sam_deploy.recipe import QUANTIZED, Recipe, read_recipe
from sam_deploy.verification.asked import Asked, held_to
from sam_deploy.verification.bundle_reference import bundle_reference
from sam_deploy.verification.fix import Fix, check_free, find_fix, fixed_path, save_fixed_recipe
from sam_deploy.verification.result import ParityResult
from sam_deploy.verification.verify import verify


@dataclass(frozen=True)
class Fixed:
    """What the bundle was like, and where it failed the fix and the recipe's file."""

    result: ParityResult
    fix: Fix | None = None
    recipe: Path | None = None


def fix_bundle(
    bundle: Path,
    asked: Asked,
    *,
    recipe_file: Path | None = None,
    calibration: str | None = None,
    progress: Progress | None = None,
) -> Fixed:
    """Verify the bundle; where it fails, find the fewest groups that must stay in higher precision,
    and write the recipe that keeps them so beside the one in `recipe_file`, or beside the bundle.

    INT8 and FP8 are calibrated as the recipe says, on `calibration`, or on three in four of the
    data, as in the export.

    Raises:
        CheckFailed: no fix was found, or the recipe needs none and the bundle is not what it makes.
        InputError: the recipe is another bundle's, the file to write is there, or as `verify`.
    """
    progress = progress or Progress()
    manifest = read_bundle(bundle)
    recipe = _recipe(manifest, asked, recipe_file, calibration)
    target = fixed_path(recipe_file or bundle.with_name(f"{bundle.absolute().name}.toml"))
    names = target.with_suffix(".txt")  # a manifest holds the classes' names, and not their file
    named = recipe_file is None and manifest.recipe.class_names is not None
    for path in [target, names] if named else [target]:
        check_free(path)
    result = verify(bundle, replace(asked, layers=True), progress)
    if result.passed:
        return Fixed(result)
    if result.layers is None:
        raise CheckFailed(f"there is nothing to go by for a fix: {'; '.join(result.failures)}")
    subject = bundle_reference(manifest, asked)
    limits = held_to(recipe.tolerances, asked)
    recipe = msgspec.structs.replace(recipe, tolerances=limits)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = Data(samples_for(subject, asked.data, labels=asked.labels, limit=asked.limit))
        if recipe.precision in QUANTIZED:
            given = data_for(subject, recipe, Request(data=asked.data), work)
            data = given if given.divided else replace(given, validation=data.validation)
        data.check_disjoint(progress)
        fix = find_fix(
            recipe,
            subject,
            lowered(subject, recipe, progress).graph,
            data,
            result.layers.suggestions,
            work=work,
            progress=progress,
        )
    if named:
        names.write_text("".join(f"{name}\n" for name in manifest.class_names), encoding="utf-8")
        recipe = msgspec.structs.replace(recipe, class_names=str(names))
    save_fixed_recipe(recipe, fix, target)
    return Fixed(result, fix, target)


def _recipe(manifest: Manifest, asked: Asked, file: Path | None, calibration: str | None) -> Recipe:
    """The recipe of the bundle with paths that are good here."""
    recipe = manifest.recipe if file is None else read_recipe(file)
    wanted = manifest.recipe
    if (recipe.name, recipe.precision) != (wanted.name, wanted.precision):
        raise InputError(
            f"{file} makes {recipe.name}, and the bundle is {wanted.name}: give its own recipe."
        )
    if file is None:  # a manifest names files without their folders
        weights = None if asked.weights is None else str(asked.weights)
        recipe = msgspec.structs.replace(recipe, weights=weights, class_names=None)
    if calibration is not None or file is None:
        recipe = msgspec.structs.replace(recipe, calibration=calibration)
    return recipe
