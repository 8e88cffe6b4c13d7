"""Which nodes belong to an FP32 island: a module path and all below it, or one node's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import onnx_ir as ir


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


def is_in(node: ir.Node, islands: Sequence[Pinned]) -> bool:
    """Whether `node` belongs to one of `islands`."""
    return island_of(node.name or "", islands) is not None


def module_of(value: ir.Value) -> str:
    """' of module X' for the module that computes `value`, or else reads it; '' at the root."""
    nodes = [value.producer(), *(user for user, _ in value.uses())]
    paths = [(node.name or "").rpartition("/")[0] for node in nodes if node is not None]
    found = next((path for path in paths if path), None)
    return "" if found is None else f" of module {found}"
