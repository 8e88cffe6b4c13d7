"""Every figure beside its tolerance, with the reason where it does not keep it.

A figure that is no number keeps none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sam_deploy.parity_report import Accuracy, BatchParity, OutputParity
from sam_deploy.recipe import Tolerances

ONE_SAMPLE = 3
"""How many times as far as all samples together a single one may be, in its slot of a batch."""
NEIGHBOURS = 3e-3
"""How much a sample's slot and neighbours may change its result in any precision, relative RMS: the
artefact is compared with itself, so INT8's own error does not enter."""


@dataclass(frozen=True)
class Figure:
    """A figure that is judged: `at_most` its limit, or at least; `form` is how it is printed."""

    what: str
    value: float
    limit: float
    at_most: bool
    form: str
    reason: str = ""
    """Why it failed, with where; empty where it was kept."""

    @property
    def kept(self) -> bool:
        """Whether it is within its limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def shown(self) -> str:
        """The figure as it is printed."""
        return f"{self.value:{self.form}}" if self.value or "e" not in self.form else "0"

    @property
    def used(self) -> float | None:
        """The part of what is allowed that it takes; None where that is no part of anything."""
        room = self.limit if self.at_most else 1 - self.limit
        lost = self.value if self.at_most else 1 - self.value
        return max(lost / room, 0.0) if room > 0 and math.isfinite(lost) else None


def reasons(figures: Iterable[Figure]) -> list[str]:
    """Why those failed that did."""
    return [figure.reason for figure in figures if figure.reason]


def output_figures(output: OutputParity, limits: Tolerances) -> Iterator[Figure]:
    """An output over all samples."""
    for what, value, limit, at_most, form in (
        ("relative RMS", output.relative_rms, limits.relative_rms, True, ".2e"),
        ("largest error", output.max_error, limits.max_error, True, ".2e"),
        ("cosine", output.cosine, limits.cosine, False, ".6f"),
        ("top-1 agreement", output.top1_agreement, limits.top1_agreement, False, ".4f"),
        ("equal elements", output.equal_elements, limits.top1_agreement, False, ".4f"),
    ):
        if value is not None:
            shown = f"allowed {limit:g}" if at_most else f"at least {limit:g}"
            reason = f"{output.name}: {what} {value:{form}}, {shown}"
            yield _judged(what, value, limit, at_most, form, reason)


def accuracy_figures(found: Accuracy, limits: Tolerances) -> Iterator[Figure]:
    """The accuracy on labelled samples."""
    for what, drop, limit, interval in (
        ("top-1", found.top1_drop, limits.top1_drop, found.top1_interval),
        ("top-5", found.top5_drop, limits.top5_drop, found.top5_interval),
    ):
        if drop is not None and interval is not None:
            reason = (
                f"{what} drops by {drop:.2f} points on {found.samples} labelled samples "
                f"(95 %: {interval[0]:.2f} to {interval[1]:.2f}), allowed {limit:g}"
            )
            yield _judged(f"{what} drop", drop, limit, True, ".2f", reason)
    if limits.top1_accuracy:  # 0 asks for nothing
        reason = (
            f"top-1 accuracy {found.top1:.2f} %, at least {limits.top1_accuracy:g} % (PyTorch "
            f"has {found.reference_top1:.2f} %: where that is low too, look at the preprocessing "
            "and at which label is which class)"
        )
        yield _judged("top-1 accuracy", found.top1, limits.top1_accuracy, False, ".2f", reason)


def batch_figures(found: BatchParity, limits: Tolerances) -> Iterator[Figure]:
    """A batch: the slot that is farthest off, and what another slot and neighbours change."""
    size, limit = found.size, ONE_SAMPLE * limits.relative_rms
    wrong = sum(not rms <= limit for rms in found.slots_rms)
    worst, rms = max(enumerate(found.slots_rms), key=lambda slot: _or_infinite(slot[1]))
    reason = (
        f"batch of {size}: slot {worst} is off by a relative RMS of {rms:.2e}, allowed "
        f"{limit:g} ({wrong} of {size} are)"
    )
    yield _judged("worst slot", rms, limit, True, ".2e", reason)
    changed, limit = found.neighbours_rms, min(limits.relative_rms, NEIGHBOURS)
    reason = (
        f"batch of {size}: a sample's result depends on its slot or its neighbours "
        f"(relative RMS {changed:.2e}, allowed {limit:g})"
    )
    yield _judged("other neighbours", changed, limit, True, ".2e", reason)


def _judged(what: str, value: float, limit: float, at_most: bool, form: str, reason: str) -> Figure:
    figure = Figure(what, value, limit, at_most, form, reason)
    return figure if not figure.kept else Figure(what, value, limit, at_most, form)


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value
