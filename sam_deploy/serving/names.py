"""What bundles are called where they are served: as their folders are, or NAME in NAME=FOLDER."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sam_deploy.errors import InputError

SUFFIX = "-images"
"""Of the model beside a classifier that takes encoded images."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def bundle_folder(bundle: Path) -> Path:
    """The folder in FOLDER or NAME=FOLDER; where a folder with a = in its name is, it is that."""
    return bundle if bundle.exists() else Path(str(bundle).partition("=")[2] or bundle)


def model_names(bundles: Sequence[Path]) -> list[str]:
    """The model name of each bundle.

    Raises:
        InputError: two have one name, or a name is none for the protocol.
    """
    names = [_name(path) for path in bundles]
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be a model's name: letters, digits and . _ - are. Rename "
                "the bundle's folder, or give NAME=FOLDER."
            )
    taken = [*names, *(name + SUFFIX for name in names)]
    twice = {name for name in taken if taken.count(name) > 1}
    if twice:
        raise InputError(
            f"two models would be called {twice.pop()!r}. Rename a folder, or give NAME=FOLDER."
        )
    return names


def _name(bundle: Path) -> str:
    name, given, _ = str(bundle).partition("=")
    return name if given and not bundle.exists() else bundle.resolve().name
