"""A full disk told as what it is, whatever a library made of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam_deploy.errors import MachineError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def told_if_full(folder: Path) -> Iterator[None]:
    """Tell of a full disk met within; a failed write names no file, so `folder` stands for it.

    Raises:
        MachineError: the disk or a quota is full, or a file may not grow so large.
    """
    try:
        yield
    except Exception as error:
        full = _full(error)
        if full is None:
            raise
        where = full.filename2 or full.filename or folder
        raise MachineError(
            f"cannot write to {where}: {os.strerror(full.errno or 0)}. "
            "Free some space, or choose another --out."
        ) from None


def _full(error: BaseException | None) -> OSError | None:
    """The error of the system behind `error`, which may have been wrapped on its way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None
