"""The figures of one output, gathered batch by batch in constant memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_deploy.manifest import OutputParity

Array = npt.NDArray[np.floating[Any]]


class OutputFigures:
    """How far one output is from the reference, over all batches seen so far, in float64.

    With `classes` the rows are scores and top-1 agreement is counted.
    """

    def __init__(self, name: str, *, classes: bool) -> None:
        self.name = name
        self._classes = classes
        self._elements = self._rows = self._agreeing = 0
        self._sum = self._actual_squares = self._reference_squares = 0.0
        self._difference_squares = self._product = self._largest = 0.0

    def update(self, actual: Array, reference: Array) -> None:
        """Take in a batch of both, of equal shape (B, ...) and finite."""
        a, r = actual.astype(np.float64), reference.astype(np.float64)
        difference = a - r
        self._elements += r.size
        self._rows += len(r)
        self._sum += float(r.sum())
        self._reference_squares += float(np.vdot(r, r))
        self._actual_squares += float(np.vdot(a, a))
        self._product += float(np.vdot(a, r))
        self._difference_squares += float(np.vdot(difference, difference))
        self._largest = max(self._largest, float(np.abs(difference).max()))
        if self._classes:
            self._agreeing += int((a.argmax(axis=1) == r.argmax(axis=1)).sum())

    def result(self) -> OutputParity:
        """The figures; errors are in units of the reference's standard deviation.

        Raises:
            ValueError: nothing was taken in, or the reference is constant.
        """
        if not self._elements:
            raise ValueError("nothing was compared")
        mean = self._sum / self._elements
        spread = math.sqrt(max(self._reference_squares / self._elements - mean * mean, 0.0))
        if not spread > 0:
            raise ValueError("the reference is constant: there is nothing to compare")
        lengths = math.sqrt(self._actual_squares * self._reference_squares)
        return OutputParity(
            name=self.name,
            relative_rms=math.sqrt(self._difference_squares / self._elements) / spread,
            max_error=self._largest / spread,
            cosine=min(self._product / lengths, 1.0) if lengths > 0 else 0.0,
            top1_agreement=self._agreeing / self._rows if self._classes else None,
        )
