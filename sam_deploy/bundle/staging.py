"""How a bundle comes to be: written beside its place by one writer, then moved there in one step.

Beside `name` stand, while it is written, `.name.lock`, `.name.partial` and, only where two folders
cannot be swapped in one step, for a moment `.name.old`. What a killed run leaves of them the next
one tidies up.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sam_deploy.bundle.disk_full import FULL, told_if_full
from sam_deploy.bundle.exchange import exchange
from sam_deploy.bundle.files import EXAMPLE, MODEL, PARITY, QUANTIZATION
from sam_deploy.bundle.interrupts import interrupts_held
from sam_deploy.bundle.lock import locked
from sam_deploy.bundle.manifest_file import write_manifest
from sam_deploy.bundle.target import check_target
from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest, manifest_to_json
from sam_deploy.plans import PLANS


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` to write into; it is gone afterwards unless it was moved.

    So are the folders above it that had to be made, if nothing stands in them. An interrupt never
    cuts the tidying short: it comes through before or after.

    Raises:
        InputError: another export is writing to `target`, or its folder cannot be written to.
        MachineError: the disk is full, now or at any time within.
    """
    folder = _partial(target)
    with interrupts_held() as hold, told_if_full(target.parent), ExitStack() as stack:
        try:
            stack.enter_context(_made(target.parent))
            stack.enter_context(locked(target))
            _tidy(target)
            folder.mkdir()
        except OSError as error:
            if error.errno in FULL:
                raise
            raise InputError(
                f"cannot write to {error.filename or target.parent}: {error.strerror}. "
                "Choose another --out."
            ) from None
        try:
            hold.let_through()
            yield folder
        finally:
            hold.held = True
            _tidy(target)


def publish(folder: Path, target: Path, manifest: Manifest, *, force: bool) -> None:
    """Write the manifest into the staged `folder`, flush everything, and move it to `target`.

    Raises:
        InputError: as `check_target`, which may have become true since it was asked.
    """
    write_manifest(folder, manifest_to_json(manifest))
    for path in [*folder.rglob("*"), folder]:
        _flush(path)
    check_target(target, force=force)
    if target.exists() and not exchange(folder, target):
        target.rename(_old(target))  # killed after this, the next export moves it back
    if not target.exists():
        folder.rename(target)
    _flush(target.parent)


def set_aside(folder: Path, target: Path) -> Path:
    """Move the staged `folder` of a refused export to `<target>.rejected`, and say where it is.

    It holds no manifest, so nothing loads it. An earlier rejected export gives way; anything else
    of that name stays, and a number is added.
    """
    for number in itertools.count(1):
        rejected = target.with_name(f"{target.name}.rejected{'' if number == 1 else f'-{number}'}")
        if _is_rejected_export(rejected):
            shutil.rmtree(rejected)
        if not (rejected.exists() or rejected.is_symlink()):
            folder.rename(rejected)
            return rejected
    raise AssertionError("unreachable")


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _tidy(target: Path) -> None:
    """Leave nothing beside `target`, whatever was done when; the lock is held.

    An old bundle that was moved away, with none in its place, goes back.
    """
    if _old(target).exists() and not target.exists():
        _old(target).rename(target)
    for folder in (_old(target), _partial(target)):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """`folder` made where it is missing; what was made and is empty in the end goes again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # something stands in it
                path.rmdir()


def _is_rejected_export(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    own = {MODEL, PARITY, EXAMPLE, QUANTIZATION, PLANS}
    return all(
        path.relative_to(folder).as_posix() in own
        or (path.parent == folder / PLANS and path.suffix == ".plan")
        for path in folder.rglob("*")
    )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
