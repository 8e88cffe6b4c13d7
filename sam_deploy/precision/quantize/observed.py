"""What is kept of an activation over all calibration samples, in a size that they do not change."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sam_deploy.precision.quantize.histogram import Histogram
from sam_deploy.precision.quantize.places import Places
from sam_deploy.runner import Array


class Observed:
    """An activation: how large its values are, and how the inputs of its readers go together.

    Of each batch at most `rows` are looked at for each of the `readers`.
    """

    def __init__(self, readers: Iterable[Places] = (), rows: int = 1024) -> None:
        self.histogram = Histogram()
        self._most = rows
        self._products: dict[Places, npt.NDArray[np.float64]] = {}
        self._rows = dict.fromkeys(readers, 0)

    def moments(self, reader: Places | None) -> npt.NDArray[np.float64] | None:
        """The mean of x x' over the rows x that `reader` takes, (inputs, inputs), where known."""
        if reader is None or reader not in self._products:
            return None
        return self._products[reader] / self._rows[reader]

    def update(self, x: Array) -> None:
        """Take in the values of `x`.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        self.histogram.update(x)
        for reader in self._rows:
            rows = reader.rows(x, self._most)
            products = (rows.T @ rows).astype(np.float64)
            if reader in self._products:
                products += self._products[reader]
            self._products[reader] = products
            self._rows[reader] += len(rows)
