"""Explicit quantization for CPUs: Q/DQ on both sides of every layer that is quantized.

ONNX Runtime's CPU provider and OpenVINO take such a layer, with its Q/DQ and its bias in INT32, for
one of integers (QLinearConv and its kin); with Q/DQ on one side it runs in floats. Activations are
UINT8 with a zero point, weights INT8 with one scale an output channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from sam_deploy.precision.quantize.graph_names import GraphNames
from sam_deploy.precision.quantize.layers import Layer
from sam_deploy.precision.quantize.qdq import dequantize, insert_weight
from sam_deploy.precision.quantize.spans import Span
from sam_deploy.precision.quantize.weights import QuantizedWeight
from sam_deploy.runner import FloatArray

_MOST = 2.0**30  # of a bias in INT32: what is added to it needs the rest


def insert_qdq_around(
    graph: ir.Graph,
    layers: Sequence[Layer],
    ranges: Mapping[str, Span],
    weights: Mapping[str, QuantizedWeight],
) -> None:
    """Quantize `layers`, in the order of the graph and in place; none makes an output of it.

    `ranges` are those of their inputs and outputs, by name; `weights` are the layers', by the
    layers' names.
    """
    names = GraphNames(graph)
    made: dict[ir.Value, ir.Value] = {}
    for layer in layers:
        x = layer.node.inputs[0]
        assert x is not None
        if x is layer.activation and x not in made:  # else it comes out of a quantized layer
            q, dq = _pair(names, f"{layer.path}.input", x, ranges[layer.input])
            graph.insert_before(layer.node, [q, dq])
            made[x] = dq.outputs[0]
        layer.node.replace_input_with(0, made.get(x, x))
        weight = weights[layer.name]
        layer.node.replace_input_with(1, insert_weight(graph, names, layer, weight))
        bias = bias_of(layer)
        if bias is not None:
            scale = ranges[layer.input].uint8()[0] * weight.scale
            layer.node.replace_input_with(2, _bias(graph, names, layer, bias, scale))
        y = layer.output
        readers = list(y.uses())
        q, dq = _pair(names, f"{layer.path}.output", y, ranges[y.name or ""])
        graph.insert_after(layer.node, [q, dq])
        for node, place in readers:
            node.replace_input_with(place, dq.outputs[0])


def least_scale(layer: Layer, activation: Span) -> FloatArray | float:
    """The least scale of `layer`'s weights, of every output, with which its bias fits INT32."""
    bias = bias_of(layer)
    if bias is None or bias.const_value is None:
        return 0.0
    least: FloatArray = np.abs(bias.const_value.numpy()) / (activation.uint8()[0] * _MOST)
    return least


def bias_of(layer: Layer) -> ir.Value | None:
    """The constant that `layer` adds itself, if any."""
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    return None if bias is None or bias.const_value is None else bias


def _pair(names: GraphNames, label: str, x: ir.Value, range_: Span) -> tuple[ir.Node, ir.Node]:
    scale, zero = range_.uint8()
    inputs = [names.weight(f"{label}_scale", scale), names.weight(f"{label}_zero_point", zero)]
    path = label.rpartition(".")[0]
    q = ir.node("QuantizeLinear", [x, *inputs], name=names.node(f"{path}/QuantizeLinear"))
    q.outputs[0].dtype, q.outputs[0].shape = ir.DataType.UINT8, x.shape
    q.outputs[0].name = f"{q.name}:0"
    return q, dequantize(names, path, [q.outputs[0], *inputs], x.shape)


def _bias(
    graph: ir.Graph, names: GraphNames, layer: Layer, bias: ir.Value, scale: FloatArray
) -> ir.Value:
    """`bias` through DQ, in units of what the sum of products is in."""
    assert bias.const_value is not None
    units = np.rint(bias.const_value.numpy() / scale.astype(np.float64)).astype(np.int32)
    inputs = [
        names.weight(f"{bias.name}.int32", units),
        names.weight(f"{bias.name}.scale", scale.astype(np.float32)),
        names.weight(f"{bias.name}.zero_point", np.zeros(len(units), np.int32)),
    ]
    dq = dequantize(names, layer.path, inputs, bias.shape, 0)
    graph.insert_before(layer.node, dq)
    if len(bias.uses()) <= 1 and bias.name is not None:
        del graph.initializers[bias.name]
    return dq.outputs[0]
