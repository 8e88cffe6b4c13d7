"""The parity gate of a model that was made from a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam_deploy.manifest import TensorSpec
from sam_deploy.parity.gate import PARITY_BATCH, measure_parity
from sam_deploy.parity.samples import Samples
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import BatchProfile
from sam_deploy.progress import Advance
from sam_deploy.recipe import Recipe
from sam_deploy.runner import Runner

if TYPE_CHECKING:
    from sam_deploy.reference import Subject


def subject_parity(
    artefact: str,
    runner: Runner,
    subject: Subject,
    recipe: Recipe,
    samples: Samples,
    specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    *,
    profile: BatchProfile | None = None,
    progress: Advance = lambda done: None,
) -> ParityReport:
    """`runner`, which runs `artefact`, against `subject`, held to the tolerances of `recipe`.

    `specs` are its inputs and outputs; the rest is as in `measure_parity`.
    """
    return measure_parity(
        runner,
        subject.run,
        samples,
        artefact=artefact,
        inputs=specs[0],
        outputs=specs[1],
        classes=bool(subject.info.num_classes),
        tolerances=recipe.tolerances,
        batch=recipe.batch or PARITY_BATCH,
        profile=profile,
        progress=progress,
    )
