"""The range of an activation, and the numbers that UINT8 has in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sam_deploy.precision.quantize.grids import UINT8, Grid
from sam_deploy.precision.quantize.histogram import Histogram
from sam_deploy.precision.quantize.thresholds import threshold
from sam_deploy.quantization import Quantization


class Span(NamedTuple):
    """The least and the greatest value that are not clipped; 0 is between them."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        """The largest |x|."""
        return max(-self.low, self.high)

    def uint8(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """The scale and the zero point that put the span on 0 to 255, both of shape ()."""
        scale = np.float32((self.high - self.low) / UINT8.largest) or np.float32(1)
        zero = np.clip(np.rint(-self.low / scale), 0, UINT8.largest)
        return np.asarray(scale), np.asarray(zero, np.uint8)


def span(histogram: Histogram, policy: Quantization, grid: Grid) -> Span:
    """What `policy` takes for the range: around 0, or with UINT8 as far as the values go."""
    if grid != UINT8:
        limit = threshold(histogram, policy, grid)
        return Span(-limit, limit)
    low, high = histogram.ends
    limit = threshold(histogram, policy, grid)
    return Span(max(low, -limit), min(high, limit))
