"""Which value of the graph is which module's output: largest numbers propose, all numbers decide.

A module's tokens (B, N, C) may stand in the graph as (B, H, W, C) or as an image (B, C, H, W); the
numbers are the same in another order, so the largest of them is the same too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir

from sam_deploy.agreement import relative_rms
from sam_deploy.precision import largest_values, write_instrumented
from sam_deploy.reference import Subject
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime import OnnxRunner
from sam_deploy.verification.values import SEEN, values_of, write_seen
from sam_deploy.verification.watching import run_watched

CHUNK_BYTES = 2**29  # of values that are held at once
_EQUAL = 1e-4  # relative RMS between FP32 in PyTorch and in ONNX Runtime, at most
_MOST_CANDIDATES = 8
T = TypeVar("T")


class Match(NamedTuple):
    """A value that holds a module's output, one of `LAYOUTS` apart; `bytes` is its size in FP32."""

    value: str
    layout: str
    bytes: int

    def as_module(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The value's `array` as the module gives it, of `shape`."""
        return LAYOUTS[self.layout](array, shape)


def _same(array: Array, shape: tuple[int, ...]) -> Array:
    return array.reshape(shape)


def _channels_to_end(array: Array, shape: tuple[int, ...]) -> Array:
    channels_first = array.reshape(len(array), array.shape[1], -1)
    return channels_first.transpose(0, 2, 1).reshape(shape)


def _channels_to_front(array: Array, shape: tuple[int, ...]) -> Array:
    channels_last = array.reshape(shape[0], -1, array.shape[-1])
    return channels_last.transpose(0, 2, 1).reshape(shape)


LAYOUTS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "same": _same,
    "channels to the end": _channels_to_end,
    "channels to the front": _channels_to_front,
}


def match_values(
    graph: ir.Model, subject: Subject, batch: Arrays, work: Path
) -> tuple[dict[str, Match], list[str]]:
    """The value that holds the output of each module, by its path in the order of execution, and
    the modules whose output is none of the values.

    `graph` is FP32, made of `subject`; both are run on `batch`. Files pass through `work`.
    """
    path = work / "values.onnx"
    write_instrumented(graph, path)
    reached = largest_values(OnnxRunner(path, in_file_order=True), [batch])
    made = [name for name in values_of(graph) if name in reached]
    largest = np.array([reached[name] for name in made])
    wanted: dict[str, tuple[list[str], int]] = {}

    def propose(module: str, array: Array) -> None:
        found = float(np.abs(array).max())
        near = np.flatnonzero(np.abs(largest - found) <= _EQUAL * found)
        names = sorted((made[i] for i in near), key=lambda name: -_kinship(module, name))
        wanted[module] = (names[:_MOST_CANDIDATES], array.nbytes)

    run_watched(subject, batch, propose)
    matches: dict[str, Match] = {}
    sizes = {module: size * len(names) for module, (names, size) in wanted.items()}
    for modules in chunks(sizes):
        candidates = {module: wanted[module][0] for module in modules}
        matches |= _decided(graph, subject, batch, candidates, path)
    path.unlink()
    return matches, [module for module in wanted if module not in matches]


def _decided(
    graph: ir.Model,
    subject: Subject,
    batch: Arrays,
    candidates: Mapping[str, list[str]],
    path: Path,
) -> dict[str, Match]:
    """The first of a module's candidates whose numbers are the module's, one by one."""
    write_seen(graph, {name for names in candidates.values() for name in names}, path)
    seen = OnnxRunner(path).run(batch)
    found: dict[str, Match] = {}

    def decide(module: str, array: Array) -> None:
        for name in candidates.get(module, ()):
            layout = _layout_of(seen[name + SEEN], array)
            if layout is not None:
                found[module] = Match(name, layout, array.nbytes)
                return

    run_watched(subject, batch, decide)
    return found


def chunks(sizes: Mapping[T, int]) -> Iterator[list[T]]:
    """The keys of `sizes` in order, as many at a time as are within `CHUNK_BYTES` together."""
    part: list[T] = []
    held = 0
    for key, size in sizes.items():
        if part and held + size > CHUNK_BYTES:
            yield part
            part, held = [], 0
        part.append(key)
        held += size
    if part:
        yield part


def _kinship(module: str, value: str) -> int:
    """How many steps from the top a module's path and that of a value have in common."""
    steps = zip(module.split("."), value.rpartition("/")[0].split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], steps))


def _layout_of(value: Array, wanted: Array) -> str | None:
    if value.size != wanted.size or wanted.ndim == 0:
        return None
    for layout, moved in LAYOUTS.items():
        try:
            same = moved(value, wanted.shape)
        except (IndexError, ValueError):  # it has too few dimensions, or does not divide
            continue
        if relative_rms(same, wanted) <= _EQUAL:
            return layout
    return None
