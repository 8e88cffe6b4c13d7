"""What an artefact and the reference are both run on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sam_deploy.images import find_images, open_image
from sam_deploy.preprocess import Preprocessing
from sam_deploy.synthetic import synthetic_images

Sample = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """A set of model inputs without their batch dimension, made anew at every iteration.

    `kind` is what the manifest calls them.
    """

    kind: Literal["folder", "synthetic", "seeded normal"]
    count: int
    make: Callable[[], Iterator[Sample]]

    def batches(self, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """The samples stacked `size` at a time, the last batch possibly smaller."""
        rows: list[Sample] = []
        for sample in self.make():
            rows.append(sample)
            if len(rows) == size:
                yield np.stack(rows)
                rows = []
        if rows:
            yield np.stack(rows)


def folder_samples(folder: Path, preprocessing: Preprocessing) -> Samples:
    """Every image under `folder`, preprocessed.

    Raises:
        InputError: no folder or no images there; while iterating, an image that cannot be read.
    """
    paths = find_images(folder)
    return Samples(
        "folder", len(paths), lambda: (preprocessing.apply(open_image(path)) for path in paths)
    )


def synthetic_samples(count: int, preprocessing: Preprocessing) -> Samples:
    """The built-in deterministic images, preprocessed."""
    return Samples(
        "synthetic",
        count,
        lambda: (preprocessing.apply(image) for image in synthetic_images(count)),
    )


def normal_samples(count: int, *shape: int) -> Samples:
    """Standard normal arrays of `shape`, seeded."""

    def make() -> Iterator[Sample]:
        random = np.random.RandomState(0)
        for _ in range(count):
            yield random.standard_normal(shape).astype(np.float32)

    return Samples("seeded normal", count, make)


class SamplesHash:
    """SHA-256 over the samples that were really used, fed batch by batch."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, batch: npt.NDArray[Any]) -> None:
        """Take in a batch (B, ...)."""
        self._hash.update(np.ascontiguousarray(batch).tobytes())

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()
