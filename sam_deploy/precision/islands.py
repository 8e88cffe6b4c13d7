"""Which nodes belong to an FP32 island."""

from __future__ import annotations

from collections.abc import Sequence

from sam_deploy.recipe import Island


def island_of(node_name: str, islands: Sequence[Island]) -> Island | None:
    """The island that the node `<module path>/<op>` belongs to, if any."""
    path = node_name.rpartition("/")[0]
    for island in islands:
        if path == island.match or path.startswith(island.match + "."):
            return island
    return None
