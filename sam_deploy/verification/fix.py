"""`--fix`: the fewest groups kept in higher precision with which parity passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from sam_deploy.bundle import MODEL
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.exporter.calibration_data import Data
from sam_deploy.exporter.recipe_file import write_recipe
from sam_deploy.progress import Progress
from sam_deploy.recipe import QUANTIZED, Recipe
from sam_deploy.reference import Subject
from sam_deploy.verification.remake import Remake, Tried
from sam_deploy.verification.result import Suggestion
from sam_deploy.verification.suggestions import with_lines


@dataclass(frozen=True)
class Fix:
    """`recipe` passes, `added` is what it has more than the one that did not; `tried` is
    everything that was looked at, that first.
    """

    recipe: Recipe
    added: list[Suggestion]
    tried: list[Tried]


def find_fix(
    recipe: Recipe,
    subject: Subject,
    graph: ir.Model,
    data: Data,
    suggestions: Sequence[Suggestion],
    *,
    work: Path,
    progress: Progress,
) -> Fix:
    """A recipe that passes: `suggestions` are added one after the other until parity does, then
    those that it passes without are dropped.

    `graph` is the FP32 graph that `recipe` makes of `subject`; it stays as it is. Judged is on
    `data.validation` by the recipe's tolerances. Files pass through the folder `work`.

    Raises:
        CheckFailed: no set of them passes; or `recipe` passes as it is, so that the artefact at
            hand is not what it makes.
        InputError: the samples cannot be used.
    """
    remake = Remake(recipe, subject, graph, data, work, progress)
    tried = [remake.judge([])]
    if tried[0].passed:
        raise CheckFailed(
            f"the recipe is fine: export again. The bundle's {MODEL} is not what it makes; a fresh "
            "one passes."
        )
    kept, rest = _added(remake, suggestions, tried)
    kept = _needed(remake, kept, tried)
    fixed = _with(recipe, kept)
    while recipe.precision in QUANTIZED:  # until here with the calibration of `recipe`
        tried.append(Remake(fixed, subject, graph, data, work, progress).judge([], named=kept))
        if tried[-1].passed:
            break
        if not rest:
            raise _hopeless(tried)
        kept = [*kept, rest.pop(0)]
        fixed = _with(recipe, kept)
    return Fix(fixed, kept, tried)


def save_fixed_recipe(old: Recipe, fix: Fix, path: Path) -> None:
    """Write `old` with what `fix` added to `path`, with comments that say so.

    Raises:
        InputError: `path` exists, or its folder does not.
    """
    check_free(path)
    comments = [
        "By sam-parity --fix. Without what was added parity failed:",
        *(f"  {reason}" for reason in fix.tried[0].failures),
        "Added, to be kept in higher precision:",
        *(f"  {s.group} (relative RMS {s.relative_rms:.1e} behind it)" for s in fix.added),
    ]
    write_recipe(_with(old, fix.added), path, comments)


def check_free(path: Path) -> None:
    """Refuse a file that is there, or whose folder is not.

    Raises:
        InputError: saying which.
    """
    if path.exists():
        raise InputError(f"{path} exists, and is not overwritten. Move it away.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to save the recipe in.")


def fixed_path(recipe: Path) -> Path:
    """Where the fixed recipe goes: beside the old one."""
    return recipe.with_name(f"{recipe.stem}.fixed.toml")


def _added(
    remake: Remake, suggestions: Sequence[Suggestion], tried: list[Tried]
) -> tuple[list[Suggestion], list[Suggestion]]:
    """The first suggestions with which parity passes, and those that are left."""
    kept: list[Suggestion] = []
    for number, suggestion in enumerate(suggestions, start=1):
        tried.append(remake.judge([*kept, suggestion]))
        if tried[-1].parity is not None:  # else it cannot be made at all: go on without
            kept.append(suggestion)
        if tried[-1].passed:
            return kept, list(suggestions[number:])
    raise _hopeless(tried)


def _needed(remake: Remake, kept: list[Suggestion], tried: list[Tried]) -> list[Suggestion]:
    """Those of `kept` that it does not pass without. It does not without the last."""
    for suggestion in kept[-2::-1]:
        others = [other for other in kept if other is not suggestion]
        tried.append(remake.judge(others))
        if tried[-1].passed:
            kept = others
    return kept


def _with(recipe: Recipe, suggestions: Sequence[Suggestion]) -> Recipe:
    for suggestion in suggestions:
        recipe = with_lines(recipe, suggestion.lines)
    return recipe


def _hopeless(tried: Sequence[Tried]) -> CheckFailed:
    """Of the largest set that could be made, and the first that could not."""
    most = max(tried, key=lambda one: (one.parity is not None, len(one.groups)))
    lines = [
        f"no fix was found: with {len(most.groups)} groups kept in higher precision parity fails:",
        *(f"  {reason}" for reason in most.failures),
    ]
    unmade = next((one for one in tried if one.parity is None), None)
    if unmade is not None:
        first = unmade.failures[0].splitlines()[0].rstrip(":")
        what = unmade.groups[-1] if unmade.groups else MODEL
        lines.append(f"  {what} could not be made so: {first}")
    lines.append("Loosen what the recipe tolerates, or export in a higher precision.")
    return CheckFailed("\n".join(lines))
