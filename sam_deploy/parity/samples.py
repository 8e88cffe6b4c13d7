"""What an artefact and the reference are both run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.images import open_image
from sam_deploy.parity_report import SampleKind
from sam_deploy.preprocess import Preprocessing
from sam_deploy.progress import Advance
from sam_deploy.runner import Array, Arrays
from sam_deploy.synthetic import synthetic_images

Numbered = Iterator[tuple[int, Arrays]]


@dataclass(frozen=True)
class Samples:
    """A set of model inputs by name, without their batch dimension, made anew at every iteration.

    `kind` is what a report calls them, `count` how many there are at most. `make` gives those from
    a number on, each with its number. `labels` and `names`, where known, are by that number: the
    class, and where the sample came from. `unreadable` gathers, while iterating, the images that
    could not be read and why: they are left out.
    """

    kind: SampleKind
    count: int
    make: Callable[[int], Numbered]
    labels: Sequence[int] | None = None
    names: Sequence[str] | None = None
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
        shown = in_utf8("; ".join(list(self.unreadable.values())[:5]))
        return [f"{len(self.unreadable)} of {self.count} images were left out: {shown}"]

    def batches(self, size: int) -> Iterator[Arrays]:
        """The samples stacked `size` at a time, the last batch possibly smaller.

        Raises:
            InputError: there were images, but none that could be read.
        """
        for _, batch in self.numbered(size):
            yield batch

    def numbered(self, size: int, start: int = 0) -> Iterator[tuple[list[int], Arrays]]:
        """The batches of the samples from number `start` on, each with its samples' numbers.

        Raises:
            InputError: there were images, but none that could be read.
        """
        numbers: list[int] = []
        rows: list[Arrays] = []
        given = start
        for number, sample in self.make(start):
            given += 1
            numbers.append(number)
            rows.append(sample)
            if len(rows) == size:
                yield numbers, _stacked(rows)
                numbers, rows = [], []
        if rows:
            yield numbers, _stacked(rows)
        if self.unreadable and not given:
            path, reason = next(iter(self.unreadable.items()))
            raise InputError(
                f"none of {len(self.unreadable)} images could be read; of the first: {reason} "
                f"Give other images than those in {path.parent}."
            )

    def first(self, count: int) -> Samples:
        """The first `count` of them, or as many as there are."""

        def make(start: int) -> Numbered:
            return islice(self.make(start), max(count - start, 0))

        return replace(self, count=min(count, self.count), make=make)

    def name(self, number: int) -> str:
        """What sample `number` is called in reports."""
        if self.names is None:
            return f"{self.kind} sample {number}"
        return in_utf8(self.names[number])


def in_utf8(text: str) -> str:
    """`text` with what UTF-8 has no form for escaped: a file's name may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def image_samples(
    name: str,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    labels: Sequence[int] | None = None,
) -> Samples:
    """The images at `paths`, preprocessed, for the input `name`.

    Images that cannot be read are left out and gathered in `unreadable`.
    """
    unreadable: dict[Path, str] = {}

    def make(start: int) -> Numbered:
        for number, path in enumerate(paths[start:], start):
            try:
                yield number, {name: preprocessing.apply(open_image(path))}
            except InputError as error:
                unreadable[path] = str(error)

    return Samples("folder", len(paths), make, labels, [str(path) for path in paths], unreadable)


def synthetic_samples(
    name: str, count: int, preprocessing: Preprocessing, *, seed: int = 0
) -> Samples:
    """The built-in deterministic images, preprocessed, for the input `name`."""

    def make(start: int) -> Numbered:
        for number, image in enumerate(synthetic_images(count, seed)):
            if number >= start:
                yield number, {name: preprocessing.apply(image)}

    return Samples("synthetic", count, make)


def normal_samples(name: str, count: int, *shape: int, seed: int = 0) -> Samples:
    """Standard normal float32 arrays of `shape`, seeded, for the input `name`."""

    def make(start: int) -> Numbered:
        random = np.random.RandomState(seed)
        for number in range(count):
            sample = {name: random.standard_normal(shape).astype(np.float32)}
            if number >= start:
                yield number, sample

    return Samples("seeded normal", count, make)


def array_samples(kind: SampleKind, arrays: Mapping[str, Array]) -> Samples:
    """The rows of `arrays`, which have the samples in dimension 0, as many in each.

    Raises:
        InputError: the arrays differ in their number of rows, or have none.
    """
    count = rows_of({name: len(array) if array.ndim else 0 for name, array in arrays.items()})
    return Samples(
        kind,
        count,
        lambda start: (
            (row, {name: array[row] for name, array in arrays.items()})
            for row in range(start, count)
        ),
    )


def rows_of(counts: Mapping[str, int]) -> int:
    """How many samples there are, from how many rows each array has.

    Raises:
        InputError: the arrays differ in their number of rows, or have none.
    """
    count = min(counts.values(), default=0)
    if count < 1 or len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {rows}" for name, rows in counts.items()) or "no array"
        raise InputError(
            f"expected the samples in dimension 0, as many for each input; got {listed}."
        )
    return count


def _stacked(rows: list[Arrays]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
