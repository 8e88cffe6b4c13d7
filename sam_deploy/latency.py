"""How long two ways to compute the same take, measured in turn: their ratio holds on a busy machine
better than either time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUNDS = 15
LEAST_GAIN = 1.02
"""Of a ratio: below that the difference is within what repeated runs differ by."""
_WARM_UP = 3


def times_ms(
    one: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """The times of each in ms, over rounds in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(_WARM_UP + rounds):
        for run, taken in ((one, times[0]), (other, times[1])):
            start = time.perf_counter()
            run()
            if round_ >= _WARM_UP:
                taken.append(1e3 * (time.perf_counter() - start))
    return times


def speed_ratio(
    one: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS
) -> float:
    """How many times as fast `one` is as `other`: the median over rounds in turn."""
    times = times_ms(one, other, rounds)
    return statistics.median(theirs / its for its, theirs in zip(*times, strict=True))
