"""The figures of an artefact as its pages list them, and the reasons that are about none."""

from __future__ import annotations

from dataclasses import dataclass

from sam_deploy.parity.judge import (
    Figure,
    accuracy_figures,
    batch_figures,
    output_figures,
    reasons,
)
from sam_deploy.verification.result import ArtefactResult


@dataclass(frozen=True)
class Judged:
    """An artefact's figures, as its outputs and batches are listed; `beside` are the reasons that
    are about none of them.
    """

    outputs: list[list[Figure]]
    accuracy: list[Figure]
    batches: list[list[Figure]]
    beside: list[str]


def judged(artefact: ArtefactResult) -> Judged:
    """Every figure of `artefact`, judged by its own tolerances."""
    parity = artefact.parity
    if parity is None:
        return Judged(outputs=[], accuracy=[], batches=[], beside=list(artefact.failures))
    limits, accuracy = parity.tolerances, parity.accuracy
    outputs = [list(output_figures(output, limits)) for output in parity.outputs]
    top = [] if accuracy is None else list(accuracy_figures(accuracy, limits))
    batches = [list(batch_figures(batch, limits)) for batch in parity.batches]
    told = set(reasons(figure for group in (*outputs, top, *batches) for figure in group))
    return Judged(outputs, top, batches, [r for r in artefact.failures if r not in told])


def allowed(figure: Figure) -> str:
    """'≤ 0.003'."""
    return f"{'≤' if figure.at_most else '≥'} {figure.limit:g}"
