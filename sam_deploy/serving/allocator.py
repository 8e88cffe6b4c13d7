"""The C library's allocator, told to keep what is freed.

A request's body is allocated and freed several times over. By default glibc gives so much back to
the system each time, and the next request pays for every page again: a millisecond for an image.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_KEPT_BYTES = {_TRIM_THRESHOLD: 256 << 20, _TOP_PAD: 16 << 20, _MMAP_THRESHOLD: 32 << 20}


def keep_freed_memory() -> None:
    """For this process; nothing happens where the C library is another."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, nbytes in _KEPT_BYTES.items():
            mallopt(option, nbytes)
