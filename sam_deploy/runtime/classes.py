"""Scores of a classifier as its most likely classes, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest
from sam_deploy.runner import Array

if TYPE_CHECKING:
    from PIL.Image import Image


class Prediction(NamedTuple):
    """One class for one image; `score` is its softmax probability."""

    class_index: int
    name: str
    score: float


def listed_images(images: Image | str | Path | Iterable[Image | str | Path]) -> list[Image | Path]:
    """`images`, one or many, as a list of PIL images and paths.

    Raises:
        InputError: one is neither.
    """
    from PIL.Image import Image as PilImage

    listed = [images] if isinstance(images, PilImage | str | Path) else list(images)
    for image in listed:
        if not isinstance(image, PilImage | str | Path):
            raise InputError(
                f"classify takes PIL images and paths, not {type(image).__name__}; "
                "call the engine itself on arrays."
            )
    return [Path(image) if isinstance(image, str) else image for image in listed]


def predictions(outputs: Array, manifest: Manifest, top: int) -> list[list[Prediction]]:
    """The `top` most likely classes of each row of `outputs` (images, classes), best first.

    `outputs` are logits, or probabilities where the recipe put the softmax into the graph.
    """
    scores = outputs.astype(np.float64)
    if not manifest.recipe.softmax:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    return [_best(row, manifest.class_names, top) for row in scores]


def _best(row: Array, names: Sequence[str], top: int) -> list[Prediction]:
    best = (int(index) for index in np.argsort(-row, kind="stable")[:top])
    return [Prediction(i, names[i] if names else f"class {i}", float(row[i])) for i in best]
