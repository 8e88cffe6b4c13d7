"""A folder of images, labelled where it holds a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sam_deploy.errors import InputError
from sam_deploy.images import find_images
from sam_deploy.parity.samples import Samples, image_samples
from sam_deploy.preprocess import Preprocessing

Labels = Literal["where they fit", "required to fit", "none"]
"""What is made of class folders: their labels where they fit the model and none where they don't,
an error where they don't, or nothing."""


def folder_samples(
    name: str,
    folder: Path,
    preprocessing: Preprocessing,
    *,
    class_names: Sequence[str] = (),
    num_classes: int | None = None,
    labels: Labels = "where they fit",
    limit: int | None = None,
) -> Samples:
    """Every image under `folder`, or `limit` of them spread over all, as `image_samples`.

    Raises:
        InputError: no folder or no images there, or labels that do not fit and should.
    """
    paths = find_images(folder)
    found = None
    if labels != "none" and num_classes:
        try:
            found = folder_labels(folder, paths, class_names, num_classes)
        except InputError:
            if labels == "required to fit":
                raise
    if limit is not None:
        rows = spread(len(paths), limit)
        paths = [paths[row] for row in rows]
        found = None if found is None else [found[row] for row in rows]
    return image_samples(name, paths, preprocessing, found)


def folder_labels(
    folder: Path, paths: Sequence[Path], class_names: Sequence[str], num_classes: int
) -> list[int] | None:
    """The class of each image in `paths`, told by the folder below `folder` that it is in.

    Folders are called as classes are, or there are as many and their sorted names stand for the
    classes in order, as in ImageNet's validation set. None where images lie in `folder` itself.

    Raises:
        InputError: the folders are none of these.
    """
    parts = [path.relative_to(folder).parts for path in paths]
    if any(len(part) == 1 for part in parts):
        return None
    found = sorted({part[0] for part in parts})
    numbers = {name: number for number, name in enumerate(class_names)}
    if len(numbers) < len(class_names):
        numbers = {}  # two classes have one name
    if not set(found) <= numbers.keys():
        if len(found) != num_classes:
            raise InputError(_unlike(folder, found, class_names, num_classes))
        if found != sorted(found, key=lambda n: int(n) if n.isdecimal() and n.isascii() else 0):
            raise InputError(
                f"the folders in {folder} are numbers: sorted as names, 10 comes before 2, and "
                "which is meant cannot be told. Give them leading zeros, or call them as the "
                "classes are called."
            )
        numbers = {name: number for number, name in enumerate(found)}
    return [numbers[part[0]] for part in parts]


def spread(count: int, limit: int) -> list[int]:
    """`limit` of `count` rows, spread evenly: of sorted classes each has its part."""
    limit = min(limit, count)
    return [index * count // limit for index in range(limit)]


def _unlike(folder: Path, found: list[str], class_names: Sequence[str], num_classes: int) -> str:
    unknown = [name for name in found if name not in class_names]
    named = f", e.g. {unknown[0]!r}" if class_names else ""
    return (
        f"{folder} holds {len(found)} folders of images, and the model has {num_classes} classes; "
        f"{len(unknown)} of the folders are not called as a class is{named}. Give a folder for "
        "each class, call them as the classes are called, or say that they are no labels: "
        "--no-labels."
    )
