"""How long work tells where it is; what is shown of it is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


class Progress:
    """Told of every stage and of steps within it. This one stays silent."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """A stage of the work; yields what to call with each number of `total` steps done."""
        yield lambda steps: None

    def note(self, text: str) -> None:
        """Something that is no failure, but that whoever watches should know."""
