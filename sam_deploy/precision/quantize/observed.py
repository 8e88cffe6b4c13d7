"""What is kept of an activation over all calibration samples, in a size that they do not change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sam_deploy.precision.quantize.histogram import Histogram
from sam_deploy.runner import Array

_MOST_CHANNELS = 4096
_ROWS = 1024  # of each batch: enough to learn from, a fraction of the graph's own work


class Observed:
    """An activation: how large its values are, and how its channels go together.

    `axis` is that of its channels; without it, or with more than 4096 of them, only the sizes of
    values are gathered.
    """

    def __init__(self, axis: int | None = None) -> None:
        self.histogram = Histogram()
        self._axis = axis
        self._products: npt.NDArray[np.float64] | None = None
        self._rows = 0

    @property
    def moments(self) -> npt.NDArray[np.float64] | None:
        """The mean of x x' over all places x of the activation, (channels, channels)."""
        return None if self._products is None else self._products / self._rows

    def update(self, x: Array) -> None:
        """Take in the values of `x`.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        self.histogram.update(x)
        if self._axis is None or x.shape[self._axis] > _MOST_CHANNELS:
            return
        rows = np.moveaxis(x, self._axis, -1).reshape(-1, x.shape[self._axis])
        rows = rows[:: max(1, len(rows) // _ROWS)].astype(np.float64)
        products = rows.T @ rows
        self._products = products if self._products is None else self._products + products
        self._rows += len(rows)
