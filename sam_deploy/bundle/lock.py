"""One writer a target: whoever comes second is told so at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sam_deploy.errors import InputError


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target`, a hidden file beside it that is gone afterwards.

    The system releases the lock of a killed process; the file it leaves is used by the next one.

    Raises:
        InputError: another export holds it.
    """
    from filelock import FileLock, Timeout  # what only reads bundles does without it

    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"another export is writing to {target}. Let it end, or choose another --name or --out."
        ) from None
    try:
        yield
    finally:
        # While it is held: who opened it before sees, once it gets it, that it has no name left,
        # and lets go of it (filelock does, since 3.21).
        with suppress(OSError):
            path.unlink()
        lock.release()
