"""How many threads an engine on the CPU takes where nobody says."""

from __future__ import annotations

import os


def usual_threads() -> int:
    """The first number in OMP_NUM_THREADS, which torch heeds too and schedulers set for a share of
    a machine; 0, which is as many as there are cores, without it or where it is no number.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0
