"""Names for the numbers that a classifier answers with."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from sam_deploy.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

IMAGENET_CLASSES = 1000


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1000 names of ImageNet-1K, in the order of the checkpoints' outputs."""
    text = (files("sam_deploy") / "data" / "imagenet1k.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a UTF-8 text file, one a line; blank lines at the end are ignored.

    Raises:
        InputError: the file is missing, unreadable, not UTF-8 or empty, or has a blank line
            before the last name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors write a byte-order mark
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"cannot read class names from {path}: {reason}; give a text file, one name a line."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"class names in {path} are not UTF-8 (byte {error.start}); save the file as UTF-8."
        ) from error
    names = [line.strip() for line in text.rstrip().split("\n")]
    if names == [""]:
        raise InputError(f"{path} holds no class names; give a text file, one name a line.")
    if "" in names:
        raise InputError(
            f"{path} line {names.index('') + 1} is blank; every line up to the last name must "
            "name a class, as a name's line is its class number."
        )
    return tuple(names)


def names_for(num_classes: int, path: Path | None) -> tuple[str, ...]:
    """Names for `num_classes` classes: from `path`, else ImageNet's if there are 1000, else none.

    Raises:
        InputError: the file cannot be read, or holds another number of names.
    """
    if path is None:
        return imagenet_names() if num_classes == IMAGENET_CLASSES else ()
    names = read_class_names(path)
    if len(names) != num_classes:
        raise InputError(
            f"{path} holds {len(names)} class names, but the model has {num_classes} classes; "
            f"give a file with {num_classes} lines."
        )
    return names
