"""How far values are from the reference's, gathered batch by batch."""

from __future__ import annotations

import math

import numpy as np

from sam_deploy.runner import Array

_MOST = 1e9


class Spread:
    """Sums in float64 of what was seen of one value."""

    def __init__(self) -> None:
        self._elements = 0
        self._difference = self._sum = self._squares = 0.0

    def update(self, actual: Array, reference: Array) -> None:
        """Take in a batch of both, of one shape."""
        a, r = actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):  # infinite on both sides
            difference = a - r
        self._elements += r.size
        self._difference += float(np.vdot(difference, difference))
        self._sum += float(r.sum())
        self._squares += float(np.vdot(r, r))

    @property
    def relative_rms(self) -> float | None:
        """RMS of the difference over the reference's standard deviation; None of a constant, and
        1e9 where something is not finite, as JSON has no infinity.
        """
        if not self._elements:
            return None
        variance = self._squares / self._elements - (self._sum / self._elements) ** 2
        if not variance > 0:
            return None
        square = self._difference / self._elements / variance
        return math.sqrt(square) if square < _MOST**2 else _MOST
