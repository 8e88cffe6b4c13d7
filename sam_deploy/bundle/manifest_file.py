"""`manifest.json` on disk. It vouches for every other file; its own sum stands beside it.

The sum is in the format of sha256sum: `sha256sum -c manifest.json.sha256` checks it by hand.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sam_deploy.bundle.files import MANIFEST, MANIFEST_SUM, reaches_outside
from sam_deploy.errors import BundleError
from sam_deploy.manifest import Manifest, manifest_from_json


def write_manifest(folder: Path, content: bytes) -> None:
    """Write the manifest `content` and its sum into `folder`."""
    (folder / MANIFEST).write_bytes(content)
    (folder / MANIFEST_SUM).write_bytes(_sum_line(content))


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, checked against its sum; the other files are not looked at.

    Raises:
        BundleError: no bundle, or one whose manifest was changed, reaches outside, or is of
            another schema.
    """
    path, sum_path = folder / MANIFEST, folder / MANIFEST_SUM
    if not path.is_file():
        what = "there is no such folder" if not folder.is_dir() else f"it holds no {MANIFEST}"
        raise BundleError(f"{folder} is not a bundle: {what}. Make one with sam-export.")
    if not sum_path.is_file():
        raise BundleError(
            f"{folder} holds no {MANIFEST_SUM}: it is not whole, or an older sam-deploy made it. "
            "Export it again."
        )
    for file in (path, sum_path):
        if reaches_outside(folder, file):
            raise BundleError(f"{file} reaches outside the bundle. Nothing of it was loaded.")
    try:
        content, line = path.read_bytes(), sum_path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {error.filename or path}: {error.strerror}.") from None
    if line != _sum_line(content):
        raise BundleError(
            f"bundle {folder} is damaged: {MANIFEST} is not what {MANIFEST_SUM} says: one of the "
            "two was changed.\nNothing of it was loaded. Copy it again, or export it again."
        )
    return manifest_from_json(content, str(path))


def _sum_line(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()
