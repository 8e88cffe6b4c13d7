"""The files of a bundle: what they are called, and how they are told from changed ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sam_deploy.manifest import FileInfo

MANIFEST = "manifest.json"
MANIFEST_SUM = "manifest.json.sha256"
MODEL = "model.onnx"
PARITY = "parity.json"
EXAMPLE = "example.npz"
QUANTIZATION = "quantization.html"


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_infos(folder: Path) -> dict[str, FileInfo]:
    """Hash and size of every file in a bundle's folder but the manifest and its sum, by path."""
    own = {folder / MANIFEST, folder / MANIFEST_SUM}
    return {
        path.relative_to(folder).as_posix(): FileInfo(
            sha256=sha256_of(path), bytes=path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in own
    }


def reaches_outside(folder: Path, path: Path) -> bool:
    """Whether `path`, with its links followed, is not below `folder`."""
    return not path.resolve().is_relative_to(folder.resolve())
