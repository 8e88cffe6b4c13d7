"""A bundle on disk: written all or nothing, and verified before anything in it is used."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sam_deploy.errors import BundleError, InputError
from sam_deploy.manifest import (
    FileInfo,
    Manifest,
    has_schema_version,
    manifest_from_json,
    manifest_to_json,
)
from sam_deploy.validation import is_plain_name

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PARITY = "parity.json"


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_infos(folder: Path) -> dict[str, FileInfo]:
    """Hash and size of every file in a bundle's folder but the manifest, by relative path."""
    return {
        path.relative_to(folder).as_posix(): FileInfo(
            sha256=sha256_of(path), bytes=path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def bundle_path(out: Path, name: str) -> Path:
    """Where the bundle `name` under `out` is.

    Raises:
        InputError: a name that reaches elsewhere, or that not every system takes.
    """
    if not is_plain_name(name):
        raise InputError(
            f"{name!r} cannot name a bundle: take letters, digits, '.', '_', '-', and --out for "
            "the folder that holds it."
        )
    return out / name


def check_target(target: Path, *, force: bool) -> None:
    """Say before any work is done whether a bundle may be written to `target`.

    Raises:
        InputError: something is there and `force` is not given, or it is no bundle, which
            `force` spares; or the folder that would hold it cannot be written to.
    """
    if target.is_symlink():
        raise InputError(f"{target} is a symbolic link: it is not overwritten. Remove it first.")
    if target.exists():
        if not has_schema_version(target / MANIFEST):
            raise InputError(
                f"{target} exists and is not a bundle (no {MANIFEST}): it is not overwritten. "
                "Choose another --name or --out."
            )
        if not force:
            raise InputError(f"{target} exists. Give --force to replace it, or another --name.")
    holder = next(parent for parent in target.absolute().parents if parent.exists())
    if not holder.is_dir() or not os.access(holder, os.W_OK):
        raise InputError(f"{holder} is not a folder that can be written to. Choose another --out.")


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into; it is gone afterwards unless it was moved.

    So are the folders above it that had to be made, if nothing stands in them.

    It starts with a dot and the target's name, so that a run killed midway leaves nothing that
    looks like a bundle.
    """
    holder = target.parent
    made = [parent for parent in (holder, *holder.parents) if not parent.exists()]
    try:
        holder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=holder))
    except OSError as error:
        raise InputError(
            f"cannot write to {holder}: {error.strerror}. Choose another --out."
        ) from None
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # a holder that something stands in stays
            for parent in made:
                parent.rmdir()


def publish(folder: Path, target: Path, manifest: Manifest, *, force: bool) -> None:
    """Write the manifest into the staged `folder`, flush everything, and rename it to `target`.

    Raises:
        InputError: as `check_target`, which may have become true since it was asked.
    """
    (folder / MANIFEST).write_bytes(manifest_to_json(manifest))
    for path in [*folder.rglob("*"), folder]:
        _flush(path)
    check_target(target, force=force)
    old = folder.with_name(f"{folder.name}.old")
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
    finally:  # whatever came in between, an interrupt too: one of the two is there, whole
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
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


def _is_rejected_export(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return {path.name for path in folder.iterdir()} <= {MODEL, PARITY}


def read_bundle(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`, every file checked against it.

    Raises:
        BundleError: not a bundle; a file is missing, too many, changed, or reaches outside.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = "there is no such folder" if not folder.is_dir() else f"it holds no {MANIFEST}"
        raise BundleError(f"{folder} is not a bundle: {what}. Make one with sam-export.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}.") from None
    manifest = manifest_from_json(content, str(path))
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
    problems += [
        f"{name}: not in the manifest" for name in sorted(present - {*manifest.files, MANIFEST})
    ]
    if MODEL not in manifest.files:
        problems.append(f"{MODEL}: not in the manifest")
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
    if not path.resolve().is_relative_to(folder.resolve()):
        return "reaches outside the bundle"
    if not path.is_file():
        return "missing"
    if path.stat().st_size != info.bytes:
        return f"{path.stat().st_size} bytes, expected {info.bytes}"
    if sha256_of(path) != info.sha256:
        return "its SHA-256 is not the manifest's: the file was changed"
    return None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
