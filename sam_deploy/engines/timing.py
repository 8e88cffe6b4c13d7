"""TensorRT's timings of kernels: taken from the cache before a build, added to it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam_deploy.engines.cache import read_cache, update_cache


def use_timings(config: Any, path: Path, notes: list[str]) -> Callable[[], None]:
    """Give the builder's `config` what `path` holds; call what is returned once the build is done.

    What is wrong with the cache is added to `notes`. TensorRT itself refuses timings of
    another GPU or driver.
    """
    kept, problem = read_cache(path)
    _note(notes, problem)
    timings = config.create_timing_cache(kept)
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        _note(notes, f"the cache {path} is not of this GPU or driver and is not used")
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, ignore_mismatch=False)

    def merged(others: bytes) -> bytes:
        """What this build timed and what others kept meanwhile."""
        if others and (theirs := config.create_timing_cache(others)) is not None:
            timings.combine(theirs, ignore_mismatch=False)
        return bytes(timings.serialize())

    return lambda: _note(notes, update_cache(path, merged))


def _note(notes: list[str], problem: str | None) -> None:
    if problem is not None:
        notes.append(problem)
