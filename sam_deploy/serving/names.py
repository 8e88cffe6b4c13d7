"""What bundles are called where they are served: as their folders are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sam_deploy.errors import InputError

SUFFIX = "-images"
"""Of the model beside a classifier that takes encoded images."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def model_names(bundles: Sequence[Path]) -> list[str]:
    """The model name of each bundle.

    Raises:
        InputError: two have one name, or a name is none for the protocol.
    """
    names = [path.resolve().name for path in bundles]
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be a model's name: letters, digits and . _ - are. Rename "
                "the bundle's folder."
            )
    taken = [*names, *(name + SUFFIX for name in names)]
    twice = {name for name in taken if taken.count(name) > 1}
    if twice:
        raise InputError(f"two models would be called {twice.pop()!r}. Rename a folder.")
    return names
