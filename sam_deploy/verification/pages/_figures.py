"""The figures of an artefact, each beside what it is held to and the reasons that are about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sam_deploy.parity.judge import NEIGHBOURS, ONE_SAMPLE
from sam_deploy.parity_report import Accuracy, BatchParity, OutputParity
from sam_deploy.recipe import Tolerances
from sam_deploy.verification.result import ArtefactResult


@dataclass(frozen=True)
class Figure:
    """A figure that is judged. `reasons` are why it failed; without any it passed."""

    what: str
    value: float
    limit: float
    at_most: bool
    form: str
    """How it is printed, as a format."""
    wording: str
    """How `sam_deploy.parity.judge` begins a reason that is about it."""
    reasons: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The figure as it is printed."""
        return f"{self.value:{self.form}}" if self.value or self.form != ".2e" else "0"

    @property
    def allowed(self) -> str:
        """'≤ 0.003'."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"

    @property
    def kept(self) -> bool:
        """Whether it is within its limit; NaN is within none."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def used(self) -> float | None:
        """The part of what is allowed that it takes; None where that is no part of anything."""
        room = self.limit if self.at_most else 1 - self.limit
        lost = self.value if self.at_most else 1 - self.value
        return max(lost / room, 0.0) if room > 0 and math.isfinite(lost) else None


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
    """Every figure with why it failed.

    The artefact's `failures` decide. A figure beyond its limit in an artefact that failed is shown
    as failed even if no reason is worded so that it can be recognised.
    """
    left = list(artefact.failures)

    def judge(figures: Iterator[Figure]) -> list[Figure]:
        found = []
        for figure in figures:
            about = [reason for reason in left if reason.startswith(figure.wording)]
            for reason in about:
                left.remove(reason)
            if not about and artefact.failures and not figure.kept:
                about = [f"{figure.what} {figure.shown}, allowed {figure.allowed}"]
            found.append(replace(figure, reasons=tuple(about)))
        return found

    parity = artefact.parity
    if parity is None:
        return Judged(outputs=[], accuracy=[], batches=[], beside=left)
    limits, accuracy = parity.tolerances, parity.accuracy
    return Judged(
        outputs=[judge(_of_output(output, limits)) for output in parity.outputs],
        accuracy=[] if accuracy is None else judge(_of_accuracy(accuracy, limits)),
        batches=[judge(_of_batch(batch, limits)) for batch in parity.batches],
        beside=left,
    )


def _of_output(output: OutputParity, limits: Tolerances) -> Iterator[Figure]:
    for what, value, limit, at_most, form in (
        ("relative RMS", output.relative_rms, limits.relative_rms, True, ".2e"),
        ("largest error", output.max_error, limits.max_error, True, ".2e"),
        ("cosine", output.cosine, limits.cosine, False, ".6f"),
        ("top-1 agreement", output.top1_agreement, limits.top1_agreement, False, ".4f"),
        ("equal elements", output.equal_elements, limits.top1_agreement, False, ".4f"),
    ):
        if value is not None:
            yield Figure(what, value, limit, at_most, form, f"{output.name}: {what} ")


def _of_accuracy(accuracy: Accuracy, limits: Tolerances) -> Iterator[Figure]:
    least = limits.top1_accuracy or None  # 0 asks for nothing
    for what, value, limit, at_most, wording in (
        ("top-1 drop", accuracy.top1_drop, limits.top1_drop, True, "top-1 drops by "),
        ("top-5 drop", accuracy.top5_drop, limits.top5_drop, True, "top-5 drops by "),
        ("top-1 accuracy", accuracy.top1, least, False, "top-1 accuracy "),
    ):
        if value is not None and limit is not None:
            yield Figure(what, value, limit, at_most, ".2f", wording)


def _of_batch(batch: BatchParity, limits: Tolerances) -> Iterator[Figure]:
    where, limit = f"batch of {batch.size}", limits.relative_rms
    slot = max(batch.slots_rms, key=lambda rms: math.inf if math.isnan(rms) else rms, default=0.0)
    for what, value, most, wording in (
        ("worst slot", slot, ONE_SAMPLE * limit, "slot "),
        (
            "other neighbours",
            batch.neighbours_rms,
            min(limit, NEIGHBOURS),
            "a sample's result depends",
        ),
    ):
        yield Figure(what, value, most, True, ".2e", f"{where}: {wording}")
