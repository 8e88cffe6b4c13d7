"""Which flavours an export builds: those asked for, or with "auto" all that can build here."""

from __future__ import annotations

from collections.abc import Sequence

from sam_deploy.engines.builder import require_builder
from sam_deploy.engines.targets import target_capabilities
from sam_deploy.errors import MachineError
from sam_deploy.plans import FLAVOURS, EngineChoice, Flavour
from sam_deploy.recipe import Precision


def chosen(
    choices: Sequence[EngineChoice],
    *,
    precision: Precision | None = None,
    compute_capabilities: Sequence[str] = (),
) -> tuple[list[Flavour], dict[Flavour, str]]:
    """The flavours to build for `choices`, and those that "auto" skipped, each with the reason.

    With `precision` the target GPUs are checked as well, before anything is exported for them.

    Raises:
        InputError: a target that TensorRT-RTX does not know, or that has no FP8.
        MachineError: a flavour asked for by name cannot build here.
    """
    taken: list[Flavour] = []
    skipped: dict[Flavour, str] = {}
    for flavour in FLAVOURS:
        if flavour not in choices and "auto" not in choices:
            continue
        try:
            found = require_builder(flavour)
            if precision is not None:
                target_capabilities(found, compute_capabilities, precision)
            taken.append(flavour)
        except MachineError as lacking:
            if flavour in choices:
                raise
            skipped[flavour] = str(lacking)
    return taken, skipped
