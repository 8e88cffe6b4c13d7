"""Explicit quantization for TensorRT: Q/DQ before the layers that are quantized.

Symmetric, zero point 0; activations with one scale, weights with one an output channel, stored as
such; biases stay floats. TensorRT, TensorRT-RTX and ONNX Runtime read this form alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from sam_deploy.precision.quantize.graph_names import GraphNames
from sam_deploy.precision.quantize.grids import Grid
from sam_deploy.precision.quantize.layers import Layer
from sam_deploy.precision.quantize.weights import QuantizedWeight, fp16_scale


def insert_qdq(
    graph: ir.Graph,
    layers: Sequence[Layer],
    ranges: Mapping[str, float],
    weights: Mapping[str, QuantizedWeight],
    grid: Grid,
) -> dict[str, float]:
    """Quantize `layers` to `grid`, in place. `ranges` is the largest |x| of an activation, by its
    name; `weights` are the layers', by the layers' names.

    Returns the range of each new value that is a float, by its name.
    """
    names = GraphNames(graph)
    made: dict[ir.Value, ir.Value] = {}
    reached: dict[str, float] = {}
    for layer in layers:
        activation = layer.activation
        if activation not in made:
            limit = ranges[layer.input]
            made[activation] = _quantized(graph, names, layer, limit, grid)
            reached[made[activation].name or ""] = limit
        layer.node.replace_input_with(0, made[activation])
        layer.node.replace_input_with(1, insert_weight(graph, names, layer, weights[layer.name]))
    return reached


def _quantized(
    graph: ir.Graph, names: GraphNames, layer: Layer, limit: float, grid: Grid
) -> ir.Value:
    """`layer`'s activation through Q and DQ, inserted before it."""
    scale = names.weight(f"{layer.path}.input_scale", fp16_scale(limit, grid))
    zero = names.weight(f"{layer.path}.input_zero_point", grid.quantized(np.zeros(())))
    x = layer.activation
    q = ir.node("QuantizeLinear", [x, scale, zero], name=names.node(f"{layer.path}/QuantizeLinear"))
    q.outputs[0].dtype, q.outputs[0].shape = grid.dtype, x.shape
    q.outputs[0].name = f"{q.name}:0"
    dq = dequantize(names, layer.path, [q.outputs[0], scale, zero], x.shape)
    graph.insert_before(layer.node, [q, dq])
    return dq.outputs[0]


def insert_weight(
    graph: ir.Graph, names: GraphNames, layer: Layer, weight: QuantizedWeight
) -> ir.Value:
    """`layer`'s weight through DQ, stored in the grid's type."""
    value = layer.weight
    stored = names.weight(f"{value.name}.{weight.grid.name}", weight.units)
    scale = names.weight(f"{value.name}.scale", weight.scale)
    zeros = weight.grid.quantized(np.zeros(len(weight.scale)))
    zero = names.weight(f"{value.name}.zero_point", zeros)
    inputs = [stored, scale, zero]
    dq = dequantize(names, layer.path, inputs, value.shape, layer.output_axis)
    graph.insert_before(layer.node, dq)
    if len(value.uses()) <= 1 and value.name is not None:  # none but this layer reads it
        del graph.initializers[value.name]
    return dq.outputs[0]


def dequantize(
    names: GraphNames,
    path: str,
    inputs: Sequence[ir.Value],
    shape: ir.Shape | None,
    axis: int | None = None,
) -> ir.Node:
    """A DQ of `inputs` (units, scale, zero point) to floats of `shape`; not inserted."""
    dq = ir.node(
        "DequantizeLinear",
        inputs,
        attributes={} if axis is None else {"axis": axis},
        name=names.node(f"{path}/DequantizeLinear"),
    )
    output = dq.outputs[0]
    output.dtype, output.shape, output.name = ir.DataType.FLOAT, shape, f"{dq.name}:0"
    return dq
