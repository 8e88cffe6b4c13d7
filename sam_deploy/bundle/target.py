"""Where a bundle may be written."""

from __future__ import annotations

import os
from pathlib import Path

from sam_deploy.bundle.files import MANIFEST
from sam_deploy.errors import InputError
from sam_deploy.manifest import has_schema_version
from sam_deploy.validation import is_plain_name


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
