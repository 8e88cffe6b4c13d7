"""The figures of one output, gathered batch by batch in constant memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sam_deploy.parity_report import OutputParity
from sam_deploy.runner import Array


class OutputFigures:
    """How far one output is from the reference, over all batches seen so far, in float64.

    With `classes` the rows are scores and top-1 agreement is counted. Of integers, booleans and
    constants only equal elements are: a class's number has no distance.
    """

    def __init__(self, name: str, *, classes: bool) -> None:
        self.name = name
        self._classes = classes
        self._elements = self._rows = self._agreeing = self._equal = 0
        self._discrete = False
        self._origin = self._mean = self._spread_squares = 0.0  # the mean is counted from there
        self._actual_squares = self._reference_squares = 0.0
        self._minimum, self._maximum = math.inf, -math.inf
        self._difference_squares = self._product = self._largest = 0.0

    def update(self, actual: Array, reference: Array) -> None:
        """Take in a batch of both, of equal shape (B, ...) and finite."""
        if not reference.size:
            return
        a, r = actual.astype(np.float64), reference.astype(np.float64)
        self._discrete = reference.dtype.kind != "f"
        near = actual == reference if self._discrete else np.isclose(a, r, rtol=1e-3, atol=1e-6)
        self._equal += int(near.sum())
        difference = a - r
        self._spread(r)
        self._rows += len(r) if r.ndim else 1
        self._minimum = min(self._minimum, float(r.min()))
        self._maximum = max(self._maximum, float(r.max()))
        self._reference_squares += float(np.vdot(r, r))
        self._actual_squares += float(np.vdot(a, a))
        self._product += float(np.vdot(a, r))
        self._difference_squares += float(np.vdot(difference, difference))
        self._largest = max(self._largest, float(np.abs(difference).max()))
        if self._classes:
            self._agreeing += int((a.argmax(axis=1) == r.argmax(axis=1)).sum())

    def result(self) -> OutputParity:
        """The figures; RMS over the reference's standard deviation, largest error over its range.

        Raises:
            ValueError: nothing was taken in.
        """
        if not self._elements:
            raise ValueError(f"nothing of {self.name} was compared")
        spread = math.sqrt(self._spread_squares / self._elements)
        if self._discrete or not spread > 0:  # of a constant there is no spread to judge by
            return OutputParity(name=self.name, equal_elements=self._equal / self._elements)
        lengths = math.sqrt(self._actual_squares * self._reference_squares)
        return OutputParity(
            name=self.name,
            relative_rms=math.sqrt(self._difference_squares / self._elements) / spread,
            max_error=self._largest / (self._maximum - self._minimum),
            cosine=min(self._product / lengths, 1.0) if lengths > 0 else 0.0,
            top1_agreement=self._agreeing / self._rows if self._classes else None,
        )

    @property
    def tells(self) -> bool:
        """Whether the reference varies: a wrong artefact would show."""
        return self._spread_squares > 0

    def _spread(self, r: npt.NDArray[np.float64]) -> None:
        # Chan's update: sums of squares lose a small spread beside a large mean, and could take
        # a constant reference for one that varies.
        if not self._elements:
            self._origin = float(r.flat[0])
        shifted = r - self._origin
        mean = float(shifted.mean())
        total = self._elements + r.size
        between = (mean - self._mean) ** 2 * self._elements * r.size / total
        self._spread_squares += float(np.square(shifted - mean).sum()) + between
        self._mean += (mean - self._mean) * r.size / total
        self._elements = total
