"""New nodes and weights of a graph, under names that it does not have yet."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sam_deploy.runner import Array


class GraphNames:
    """Gives new nodes and weights of `graph` their names."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes = {node.name for node in graph}

    def node(self, wanted: str) -> str:
        """`wanted`, or the next of its name."""
        name = wanted.removeprefix("/")
        count = 1
        while name in self._nodes:
            count += 1
            name = f"{wanted.removeprefix('/')}_{count}"
        self._nodes.add(name)
        return name

    def weight(self, wanted: str, array: Array) -> ir.Value:
        """`array` as a weight of the graph, called `wanted` or the next of its name."""
        name = wanted.removeprefix(".")
        count = 1
        while name in self._graph.initializers:
            count += 1
            name = f"{wanted.removeprefix('.')}_{count}"
        tensor = ir.tensor(np.asarray(array, order="C"), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
        value.shape = ir.Shape(array.shape)
        self._graph.register_initializer(value)
        return value
