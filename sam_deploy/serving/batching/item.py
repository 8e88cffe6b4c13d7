"""A request as it waits in a queue, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sam_deploy.runner import Array, Arrays

Kind = tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class BatchOptions:
    """At most `max_batch` rows run together, which wait `max_delay_ms` for each other; `queue`
    requests may wait in all.
    """

    max_batch: int
    max_delay_ms: float = 0.0
    queue: int = 256


class Ran(NamedTuple):
    """A request's outputs; how long it waited and was computed, in how large a batch."""

    outputs: Arrays
    queue_ns: int
    compute_ns: int
    batch: int


@dataclass(eq=False)
class Item:
    """One request: inputs with the batch first in each, and who waits for it."""

    inputs: Arrays
    answer: asyncio.Future[Ran]
    since_ns: int
    batches: bool

    @cached_property
    def rows(self) -> int:
        """Of its batch."""
        return len(next(iter(self.inputs.values())))

    @cached_property
    def kind(self) -> Kind:
        """What requests must have in common to run together."""
        return tuple((n, a.dtype.str, a.shape[1:]) for n, a in self.inputs.items())


def taken(waiting: list[Item], most_rows: int) -> list[Item]:
    """The items that run next: the first, and those of its kind that fit, in their order."""
    first = waiting[0]
    chosen, rows = [first], first.rows
    if first.batches:
        for item in waiting[1:]:
            if rows >= most_rows:
                break
            if item.batches and item.kind == first.kind and rows + item.rows <= most_rows:
                chosen.append(item)
                rows += item.rows
    return chosen


def joined(items: Sequence[Item]) -> dict[str, list[Array]]:
    """Their inputs as one batch: the parts of each, to be put one behind the other."""
    return {name: [item.inputs[name] for item in items] for name in items[0].inputs}


def divided(outputs: Arrays, items: Sequence[Item]) -> list[Arrays]:
    """The outputs of each."""
    if len(items) == 1:
        return [outputs]
    ends = np.cumsum([item.rows for item in items])
    return [
        {name: array[end - item.rows : end] for name, array in outputs.items()}
        for item, end in zip(items, ends, strict=True)
    ]
