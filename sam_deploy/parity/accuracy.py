"""Top-1 and top-5 on labelled samples, of the artefact and of the reference, and what is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from sam_deploy.parity_report import Accuracy
from sam_deploy.runner import Array

_Z = 1.959964  # of a normal distribution, 95 % lie within as many standard deviations
_TOPS = (1, 5)


class Hits(msgspec.Struct, kw_only=True):
    """How often the label was among the first k: by both, by one alone, by neither."""

    both: int = 0
    reference_only: int = 0
    artefact_only: int = 0
    neither: int = 0

    @property
    def samples(self) -> int:
        """All that were counted."""
        return self.both + self.reference_only + self.artefact_only + self.neither

    def drop_interval(self) -> tuple[float, float]:
        """The 95 % interval of the reference's part less the artefact's, in points.

        Wald's interval for matched pairs with half a sample added to each cell (Agresti and Min
        2005, https://doi.org/10.1002/sim.1781): it has a width also where no pair differs.
        """
        n = self.samples + 2
        lost, won = self.reference_only + 0.5, self.artefact_only + 0.5
        drop = (lost - won) / n
        width = _Z * math.sqrt(max(lost + won - (lost - won) ** 2 / n, 0.0)) / n
        return 100 * (drop - width), 100 * (drop + width)


class AccuracyCount:
    """Counts hits batch by batch, from where `hits` (of top-1 and of top-5) left off."""

    def __init__(self, hits: Sequence[Hits] = ()) -> None:
        self.hits = list(hits) or [Hits() for _ in _TOPS]

    def update(self, actual: Array, reference: Array, labels: Sequence[int]) -> None:
        """Take in scores (B, classes) of both, and the labels (B)."""
        ours, theirs = (_ranks(scores, labels) for scores in (actual, reference))
        for top, hits in zip(_TOPS, self.hits, strict=True):
            hit, expected = ours < top, theirs < top
            hits.both += int((hit & expected).sum())
            hits.reference_only += int((~hit & expected).sum())
            hits.artefact_only += int((hit & ~expected).sum())
            hits.neither += int((~hit & ~expected).sum())

    def result(self, num_classes: int) -> Accuracy | None:
        """The figures, or None where nothing was counted. Of few classes there is no top-5."""
        first, five = self.hits
        if not first.samples:
            return None
        found = Accuracy(
            samples=first.samples,
            top1=_percent(first, first.artefact_only),
            reference_top1=_percent(first, first.reference_only),
            top1_drop=_drop(first),
            top1_interval=first.drop_interval(),
        )
        if num_classes <= _TOPS[1]:
            return found
        return msgspec.structs.replace(
            found,
            top5=_percent(five, five.artefact_only),
            reference_top5=_percent(five, five.reference_only),
            top5_drop=_drop(five),
            top5_interval=five.drop_interval(),
        )


def _ranks(scores: Array, labels: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many classes come before the label; of equal scores the first class comes first."""
    of_label = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1])[None] < np.asarray(labels)[:, None]
    before = (scores > of_label) | ((scores == of_label) & earlier)
    ranks: npt.NDArray[np.int64] = before.sum(axis=1)
    return ranks


def _percent(hits: Hits, alone: int) -> float:
    return 100 * (hits.both + alone) / hits.samples


def _drop(hits: Hits) -> float:
    return 100 * (hits.reference_only - hits.artefact_only) / hits.samples
