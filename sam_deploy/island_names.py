"""Which nodes belong to an FP32 island: a module path and all below it, or one node's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Pinned(Protocol):
    """A recipe's island, or one of the report."""

    @property
    def match(self) -> str:
        """A module path, or a node's name."""
        ...

    @property
    def reason(self) -> str:
        """Why it stays in FP32."""
        ...


Kind = TypeVar("Kind", bound=Pinned)


def island_of(node_name: str, islands: Sequence[Kind]) -> Kind | None:
    """The island that the node `<module path>/<op>` belongs to, if any."""
    path = node_name.rpartition("/")[0]
    for island in islands:
        if island.match in (path, node_name) or path.startswith(island.match + "."):
            return island
    return None
