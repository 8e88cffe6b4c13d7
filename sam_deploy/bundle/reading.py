"""Every file of a bundle checked against its manifest, before anything of it is used."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sam_deploy.bundle.files import (
    EXAMPLE,
    MANIFEST,
    MANIFEST_SUM,
    MODEL,
    reaches_outside,
    sha256_of,
)
from sam_deploy.bundle.manifest_file import read_manifest
from sam_deploy.errors import BundleError
from sam_deploy.manifest import FileInfo, Manifest


def read_bundle(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`, every file checked against it.

    Raises:
        BundleError: not a bundle, or of another schema; a file is missing, too many, changed, or
            reaches outside.
    """
    while True:
        before = _identity(folder)
        try:
            return _read(folder)
        except BundleError:
            if _identity(folder) == before:
                raise  # else another bundle took its place meanwhile: that one counts


def _identity(folder: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = folder.stat()
        return status.st_dev, status.st_ino, status.st_ctime_ns  # an inode may be used again
    return None


def _read(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    problems = [
        f"{name}: {problem}"
        for name, info in manifest.files.items()
        if (problem := _problem(folder, name, info))
    ]
    present = {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_symlink() or not p.is_dir()
    }
    known = {*manifest.files, MANIFEST, MANIFEST_SUM}
    problems += [f"{name}: not in the manifest" for name in sorted(present - known)]
    needed = (MODEL, EXAMPLE)
    problems += [f"{name}: not in the manifest" for name in needed if name not in manifest.files]
    if problems:
        raise BundleError(
            f"bundle {folder} is damaged:\n  "
            + "\n  ".join(problems[:10])
            + "\nNothing of it was loaded. Copy it again, or export it again."
        )
    return manifest


def _problem(folder: Path, name: str, info: FileInfo) -> str | None:
    path = folder / name
    try:
        return _changed(folder, path, info)
    except (OSError, ValueError, RuntimeError) as error:  # a name no system takes, a link in a ring
        return f"cannot be read: {error}"


def _changed(folder: Path, path: Path, info: FileInfo) -> str | None:
    if reaches_outside(folder, path):
        return "reaches outside the bundle"
    if not path.is_file():
        return "missing"
    if path.stat().st_size != info.bytes:
        return f"{path.stat().st_size} bytes, expected {info.bytes}"
    if sha256_of(path) != info.sha256:
        return "its SHA-256 is not the manifest's: the file was changed"
    return None
