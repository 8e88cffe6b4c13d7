"""How close one array is to another, in one figure (`parity.figures` gathers it in batches)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def relative_rms(actual: Array, reference: Array) -> float:
    """RMS of the difference over the standard deviation of the reference, both in float64.

    0 where the two are equal; infinite where the reference is constant and they are not, or
    where anything is NaN or infinite: no figure that a tolerance could pass by mistake.
    """
    actual64, reference64 = np.asarray(actual, np.float64), np.asarray(reference, np.float64)
    if not (np.isfinite(actual64).all() and np.isfinite(reference64).all()):
        return math.inf
    difference = float(np.sqrt(np.mean(np.square(actual64 - reference64))))
    if difference == 0.0:
        return 0.0
    spread = float(reference64.std())
    return difference / spread if spread > 0 else math.inf
