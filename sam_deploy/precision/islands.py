"""Which nodes of a graph are in an FP32 island."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from sam_deploy.island_names import Pinned, island_of

__all__ = ["Pinned", "is_in", "island_of", "module_of"]


def is_in(node: ir.Node, islands: Sequence[Pinned]) -> bool:
    """Whether `node` belongs to one of `islands`."""
    return island_of(node.name or "", islands) is not None


def module_of(value: ir.Value) -> str:
    """' of module X' for the module that computes `value`, or else reads it; '' at the root."""
    nodes = [value.producer(), *(user for user, _ in value.uses())]
    paths = [(node.name or "").rpartition("/")[0] for node in nodes if node is not None]
    found = next((path for path in paths if path), None)
    return "" if found is None else f" of module {found}"
