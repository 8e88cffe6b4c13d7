"""The figures of one output, gathered batch by batch in constant memory."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from sam_deploy.parity_report import OutputParity
from sam_deploy.runner import Array


class Sums(msgspec.Struct, kw_only=True):
    """What has been gathered so far: all that is needed to go on later, in another process."""

    elements: int = 0
    rows: int = 0
    agreeing: int = 0
    equal: int = 0
    discrete: bool = False
    origin: float = 0.0
    mean: float = 0.0
    """Counted from `origin`."""
    spread_squares: float = 0.0
    actual_squares: float = 0.0
    reference_squares: float = 0.0
    difference_squares: float = 0.0
    product: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    largest: float = 0.0
    margins: float = 0.0
    largest_margin: float = 0.0


class OutputFigures:
    """How far one output is from the reference, over all batches seen so far, in float64.

    With `classes` the rows are scores and top-1 agreement is counted. Of integers, booleans and
    constants only equal elements are: a class's number has no distance.
    """

    def __init__(self, name: str, *, classes: bool, sums: Sums | None = None) -> None:
        self.name = name
        self.sums = Sums() if sums is None else sums
        self._classes = classes

    def update(self, actual: Array, reference: Array, *, counted: bool = True) -> None:
        """Take in a batch of both, of equal shape (B, ...) and finite; the decisions of rows that
        were taken in before are not `counted` again.
        """
        if not reference.size:
            return
        sums = self.sums
        a, r = actual.astype(np.float64), reference.astype(np.float64)
        sums.discrete = reference.dtype.kind != "f"
        near = actual == reference if sums.discrete else np.isclose(a, r, rtol=1e-3, atol=1e-6)
        sums.equal += int(near.sum())
        difference = a - r
        self._spread(r)
        sums.minimum = min(sums.minimum, float(r.min()))
        sums.maximum = max(sums.maximum, float(r.max()))
        sums.reference_squares += float(np.vdot(r, r))
        sums.actual_squares += float(np.vdot(a, a))
        sums.product += float(np.vdot(a, r))
        sums.difference_squares += float(np.vdot(difference, difference))
        sums.largest = max(sums.largest, float(np.abs(difference).max()))
        if self._classes and counted:
            self._decisions(a, r)

    def result(self) -> OutputParity:
        """The figures; RMS over the reference's standard deviation, largest error over its range.

        Raises:
            ValueError: nothing was taken in.
        """
        sums = self.sums
        if not sums.elements:
            raise ValueError(f"nothing of {self.name} was compared")
        spread = math.sqrt(sums.spread_squares / sums.elements)
        if sums.discrete or not spread > 0:  # of a constant there is no spread to judge by
            return OutputParity(name=self.name, equal_elements=sums.equal / sums.elements)
        lengths = math.sqrt(sums.actual_squares * sums.reference_squares)
        found = OutputParity(
            name=self.name,
            relative_rms=math.sqrt(sums.difference_squares / sums.elements) / spread,
            max_error=sums.largest / (sums.maximum - sums.minimum),
            cosine=min(sums.product / lengths, 1.0) if lengths > 0 else 0.0,
        )
        if not self._classes:
            return found
        flips = sums.rows - sums.agreeing
        return msgspec.structs.replace(
            found,
            top1_agreement=sums.agreeing / sums.rows,
            flips=flips,
            flip_margin_mean=sums.margins / flips / spread if flips else None,
            flip_margin_max=sums.largest_margin / spread if flips else None,
        )

    @property
    def tells(self) -> bool:
        """Whether the reference varies: a wrong artefact would show."""
        return self.sums.spread_squares > 0

    def _decisions(self, a: npt.NDArray[np.float64], r: npt.NDArray[np.float64]) -> None:
        chosen, expected = a.argmax(axis=1), r.argmax(axis=1)
        rows = np.arange(len(r))
        margins = r[rows, expected] - r[rows, chosen]
        self.sums.rows += len(r)
        self.sums.agreeing += int((chosen == expected).sum())
        self.sums.margins += float(margins.sum())
        self.sums.largest_margin = max(self.sums.largest_margin, float(margins.max()))

    def _spread(self, r: npt.NDArray[np.float64]) -> None:
        # Chan's update: sums of squares lose a small spread beside a large mean, and could take
        # a constant reference for one that varies.
        sums = self.sums
        if not sums.elements:
            sums.origin = float(r.flat[0])
        shifted = r - sums.origin
        mean = float(shifted.mean())
        total = sums.elements + r.size
        between = (mean - sums.mean) ** 2 * sums.elements * r.size / total
        sums.spread_squares += float(np.square(shifted - mean).sum()) + between
        sums.mean += (mean - sums.mean) * r.size / total
        sums.elements = total
