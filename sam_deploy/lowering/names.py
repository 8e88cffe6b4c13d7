"""Node and value names that begin with the path of the PyTorch module they come from.

`block3.2.attn.proj0/Conv` reads in a profile or an error what `node_conv2d_87` does not.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"  # a list literal of module paths, outermost first, then op


def name_by_module(graph: ir.Graph) -> None:
    """Rename every node `<module path>/<op>`, and its outputs after it but for the graph's own."""
    outputs = set(graph.outputs)
    seen: Counter[str] = Counter()
    for node in graph:
        scope = module_path(node)
        base = f"{scope}/{node.op_type}" if scope else node.op_type
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"
        for index, value in enumerate(node.outputs):
            if value not in outputs:
                value.name = f"{node.name}:{index}"


def module_path(node: ir.Node) -> str:
    """The path of the module that `node` comes from, as the exporter recorded it.

    A node that the exporter inserted itself carries no record: it belongs to the module that its
    neighbours share.
    """
    recorded = _recorded(node)
    if recorded is not None:
        return recorded
    producers = [value.producer() for value in node.inputs if value is not None]
    consumers = [user for value in node.outputs for user, _ in value.uses()]
    paths = [
        path.split(".")
        for neighbour in [*producers, *consumers]
        if neighbour is not None and (path := _recorded(neighbour)) is not None
    ]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) != 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _recorded(node: ir.Node) -> str | None:
    scopes = node.metadata_props.get(_SCOPES)
    if scopes is None:
        return None
    modules = ast.literal_eval(scopes)[:-1]
    return str(modules[-1]) if modules else ""
