"""From a histogram of |x| to the range that is quantized: four ways to weigh clipping.

Min-max clips nothing; percentile clips a fixed part; MSE minimises the squared error of rounding
and clipping together; entropy minimises the information lost (Migacz, 8-bit Inference with
TensorRT, GTC 2017).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sam_deploy.precision.quantize.grids import UINT8, Grid
from sam_deploy.precision.quantize.histogram import BINS, Histogram
from sam_deploy.quantization import Quantization

_Floats = npt.NDArray[np.float64]
_MSE_CANDIDATES = 128
_ENTROPY_LEVELS = 128  # of |x| in INT8
_ENTROPY_STEP = 16  # bins between candidates


def threshold(histogram: Histogram, policy: Quantization, grid: Grid) -> float:
    """The |x| that becomes the largest number of `grid`; 0 where all values were 0."""
    if not histogram.largest:
        return 0.0
    if policy.method == "minmax":
        return histogram.largest
    if policy.method == "percentile":
        return percentile_threshold(histogram, policy.percentile)
    if policy.method == "entropy":
        return entropy_threshold(histogram, levels(histogram, grid))
    return mse_threshold(histogram, grid)


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """The smallest bin edge that `percentile` % of the values do not exceed."""
    reached = np.cumsum(histogram.counts) >= percentile / 100 * histogram.counts.sum()
    return min((int(reached.argmax()) + 1) * histogram.limit / BINS, histogram.largest)


def mse_threshold(histogram: Histogram, grid: Grid) -> float:
    """The range with the least squared error: rounding inside, clipping outside."""
    centres, counts = histogram.centres, histogram.counts
    candidates = histogram.largest * np.arange(1, _MSE_CANDIDATES + 1) / _MSE_CANDIDATES
    errors = []
    for limit in candidates:
        scale = step(histogram, float(limit), grid)
        rounded = grid.rounded(np.minimum(centres, limit) / scale) * scale
        errors.append(float(np.dot(np.square(rounded - centres), counts)))
    return float(candidates[int(np.argmin(errors))])


def step(histogram: Histogram, limit: float, grid: Grid) -> float:
    """The scale where what is beyond `limit` is clipped: UINT8 has its numbers for both sides, as
    far as each goes.
    """
    if grid != UINT8:
        return limit / grid.largest
    low, high = histogram.ends
    return (min(-low, limit) + min(high, limit)) / grid.largest


def levels(histogram: Histogram, grid: Grid) -> int:
    """How many numbers |x| has: of UINT8 as many as the side that goes further."""
    if grid != UINT8:
        return _ENTROPY_LEVELS
    return int(histogram.largest / step(histogram, histogram.largest, grid)) + 1


def entropy_threshold(histogram: Histogram, count: int = _ENTROPY_LEVELS) -> float:
    """The range whose `count` levels lose the least: the Kullback-Leibler divergence between the
    values, those beyond the range on its last bin, and the same after quantization.
    """
    counts = histogram.counts.astype(np.float64)
    used = int(np.ceil(histogram.largest / histogram.limit * BINS))
    starts = range(count, used + 1, _ENTROPY_STEP)
    if not starts:
        return histogram.largest
    divergences = [_divergence(counts, bins, count) for bins in starts]
    best = starts[int(np.argmin(divergences))]
    return min(best * histogram.limit / BINS, histogram.largest)


def _divergence(counts: _Floats, bins: int, count: int) -> float:
    inside = counts[:bins]
    p = inside.copy()
    p[-1] += counts[bins:].sum()
    level = np.minimum(np.arange(bins) * count // bins, count - 1)
    occupied = (inside > 0).astype(np.float64)
    sums = np.bincount(level, inside, count)
    places = np.bincount(level, occupied, count)
    q = np.divide(sums, places, out=np.zeros_like(sums), where=places > 0)[level] * occupied
    p /= p.sum()
    q /= max(q.sum(), 1.0)
    # A value that quantization cannot give (q = 0) costs as much as one that is there once.
    floor = 1.0 / counts.sum()
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], floor))))
