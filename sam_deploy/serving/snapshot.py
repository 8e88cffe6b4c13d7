"""A bundle as it was when it was loaded, whatever is put in its place later."""

from __future__ import annotations

import shutil
from pathlib import Path

from sam_deploy.bundle import read_bundle
from sam_deploy.errors import BundleError
from sam_deploy.manifest import Manifest

Identity = tuple[tuple[str, int, int, int], ...]


def identity(folder: Path) -> Identity | None:
    """What tells one state of a bundle's files from another; None where there is none."""
    try:
        return (
            tuple(
                (
                    path.relative_to(folder).as_posix(),
                    status.st_ino,
                    status.st_size,
                    status.st_mtime_ns,
                )
                for path in sorted(folder.rglob("*"))
                if (status := path.stat())
            )
            or None
        )
    except OSError:  # changed under our eyes
        return None


def copied(bundle: Path, folder: Path) -> Manifest:
    """Copy `bundle` to `folder`, and verify the copy: a worker that starts again finds the same.

    Raises:
        BundleError: it is not whole; nothing stays in `folder`.
    """
    try:
        read_bundle(bundle)
        shutil.copytree(bundle, folder)
        return read_bundle(folder)
    except BundleError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BundleError(str(error).replace(str(folder), str(bundle))) from None
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BundleError(f"cannot copy {bundle}: {error}") from None
