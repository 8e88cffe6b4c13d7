"""What an artefact and the reference are both run on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.images import find_images, open_image
from sam_deploy.parity_report import SampleKind
from sam_deploy.preprocess import Preprocessing
from sam_deploy.progress import Advance
from sam_deploy.runner import Array, Arrays
from sam_deploy.synthetic import synthetic_images


@dataclass(frozen=True)
class Samples:
    """A set of model inputs by name, without their batch dimension, made anew at every iteration.

    `kind` is what the manifest calls them, `count` how many there are at most. `unreadable`
    gathers, while iterating, the images that could not be read and why: they are left out.
    """

    kind: SampleKind
    count: int
    make: Callable[[], Iterator[Arrays]]
    unreadable: dict[Path, str] = field(default_factory=dict)

    def filled(self, size: int | None, default: int, advance: Advance) -> Iterator[Arrays]:
        """Batches of `size`, the last filled up with repeats; of `default`, the last smaller,
        where it is free. `advance` is told how many samples each held.
        """
        for x in self.batches(size or default):
            rows = len(next(iter(x.values())))
            yield {n: np.resize(a, (size or rows, *a.shape[1:])) for n, a in x.items()}
            advance(rows)

    def left_out(self) -> list[str]:
        """What should be known of the images that could not be read, once all were iterated."""
        if not self.unreadable:
            return []
        shown = "; ".join(list(self.unreadable.values())[:5])
        return [f"{len(self.unreadable)} of {self.count} images were left out: {shown}"]

    def batches(self, size: int) -> Iterator[Arrays]:
        """The samples stacked `size` at a time, the last batch possibly smaller.

        Raises:
            InputError: there were images, but none that could be read.
        """
        rows: list[Arrays] = []
        given = 0
        for sample in self.make():
            given += 1
            rows.append(sample)
            if len(rows) == size:
                yield _stacked(rows)
                rows = []
        if rows:
            yield _stacked(rows)
        if self.unreadable and not given:
            path, reason = next(iter(self.unreadable.items()))
            raise InputError(
                f"none of {len(self.unreadable)} images could be read; of the first: {reason} "
                f"Give other images than those in {path.parent}."
            )


def folder_samples(name: str, folder: Path, preprocessing: Preprocessing) -> Samples:
    """Every image under `folder`, as `image_samples`.

    Raises:
        InputError: no folder or no images there.
    """
    return image_samples(name, find_images(folder), preprocessing)


def image_samples(name: str, paths: Sequence[Path], preprocessing: Preprocessing) -> Samples:
    """The images at `paths`, preprocessed, for the input `name`.

    Images that cannot be read are left out and gathered in `unreadable`.
    """
    unreadable: dict[Path, str] = {}

    def make() -> Iterator[Arrays]:
        for path in paths:
            try:
                yield {name: preprocessing.apply(open_image(path))}
            except InputError as error:
                unreadable[path] = str(error)

    return Samples("folder", len(paths), make, unreadable)


def synthetic_samples(
    name: str, count: int, preprocessing: Preprocessing, *, seed: int = 0
) -> Samples:
    """The built-in deterministic images, preprocessed, for the input `name`."""
    return Samples(
        "synthetic",
        count,
        lambda: ({name: preprocessing.apply(image)} for image in synthetic_images(count, seed)),
    )


def normal_samples(name: str, count: int, *shape: int, seed: int = 0) -> Samples:
    """Standard normal float32 arrays of `shape`, seeded, for the input `name`."""

    def make() -> Iterator[Arrays]:
        random = np.random.RandomState(seed)
        for _ in range(count):
            yield {name: random.standard_normal(shape).astype(np.float32)}

    return Samples("seeded normal", count, make)


def array_samples(kind: SampleKind, arrays: Mapping[str, Array]) -> Samples:
    """The rows of `arrays`, which have the samples in dimension 0, as many in each.

    Raises:
        InputError: the arrays differ in their number of rows, or have none.
    """
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    count = min(counts.values(), default=0)
    if count < 1 or len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {rows}" for name, rows in counts.items()) or "no array"
        raise InputError(
            f"expected the samples in dimension 0, as many for each input; got {listed}."
        )
    return Samples(
        kind,
        count,
        lambda: ({name: array[row] for name, array in arrays.items()} for row in range(count)),
    )


def sample_hashes(samples: Samples) -> list[str]:
    """SHA-256 of each sample as the model sees it, in order.

    Raises:
        InputError: there were images, but none that could be read.
    """
    hashes = []
    for sample in samples.batches(1):
        one = SamplesHash()
        one.update(sample)
        hashes.append(one.hexdigest())
    return hashes


class SamplesHash:
    """SHA-256 over the samples that were really used, fed batch by batch."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, batch: Mapping[str, Array]) -> None:
        """Take in a batch: of each sample its inputs, one after the other."""
        for row in range(len(next(iter(batch.values())))):
            for array in batch.values():
                self._hash.update(np.ascontiguousarray(array[row]).tobytes())

    def over(self, samples: Samples) -> Samples:
        """The same `samples`, taken in as they pass."""

        def make() -> Iterator[Arrays]:
            for sample in samples.make():
                self.update({name: array[None] for name, array in sample.items()})
                yield sample

        return replace(samples, make=make)

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


def _stacked(rows: list[Arrays]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
