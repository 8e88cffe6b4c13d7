"""How many threads an engine on the CPU takes where nobody says."""

from __future__ import annotations

import os


def usual_threads() -> int:
    """The first number in OMP_NUM_THREADS, which torch heeds too and schedulers set for a share of
    a machine; 0, which is as many as there are cores, without it or where it is no number.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def usable_cores() -> int:
    """Those that this process may use: a container's, not the machine's; 0 where none says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
