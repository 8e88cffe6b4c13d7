"""How large the values of a tensor are, gathered batch by batch in a few kilobytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sam_deploy.runner import Array

BINS = 4096  # at least half of them are in use: the range doubles only when it must


class Histogram:
    """Counts of |x| in equal bins over [0, limit]; `limit` doubles where a larger value comes.

    `least` and `greatest` are of x itself.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.largest = 0.0
        self.least, self.greatest = np.inf, -np.inf

    def update(self, x: Array) -> None:
        """Take in the values of `x`, of any shape.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        sizes = np.abs(x, dtype=np.float32).ravel()
        largest = float(sizes.max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError("it holds NaN or infinity")
        if largest > 0:
            self._reach(largest)
            sizes /= np.float32(self.limit)  # not times BINS / limit, which may be infinite
            sizes *= np.float32(BINS)
            places = np.minimum(sizes.astype(np.int32), BINS - 1)
            self.counts += np.bincount(places, minlength=BINS)
        else:
            self.counts[0] += sizes.size
        self.largest = max(self.largest, largest)
        self.least = min(self.least, float(np.min(x, initial=np.inf)))
        self.greatest = max(self.greatest, float(np.max(x, initial=-np.inf)))

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest of x and 0."""
        return min(self.least, 0.0), max(self.greatest, 0.0)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of every bin; that of the first is 0, where the zeros are."""
        centres = (np.arange(BINS, dtype=np.float64) + 0.5) * np.float64(self.limit / BINS)
        centres[0] = 0.0
        return centres

    def _reach(self, largest: float) -> None:
        if not self.limit:
            self.limit = largest
        while self.limit < largest:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([half, np.zeros_like(half)])
            self.limit *= 2
