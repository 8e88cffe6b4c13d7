"""The audit of explicit quantization: what was listed is quantized, whole, and nothing else is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})


def qdq_problems(model: onnx.ModelProto, listed: Collection[str], dtype: int) -> Iterator[str]:
    """What contradicts it that just the nodes `listed` compute in `dtype` (of TensorProto).

    Every Q and DQ must be of `dtype` with a zero point of 0 (TensorRT refuses others, and takes
    UINT8 for INT8), with finite scales above 0; both inputs of a listed node must come from a DQ.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    quantizers = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
    dequantized = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    names = set()
    for node in model.graph.node:
        names.add(node.name)
        if node.op_type in _PAIR:
            yield from pair_problems(node, weights, dtype)
            yield from zero_problems(node, weights)
            maker = quantizers.get(node.input[0])
            if maker is not None and maker.input[1:3] != node.input[1:3]:
                yield f"{node.name} has another scale or zero point than {maker.name}"
            continue
        read = [name in dequantized for name in node.input]
        if node.name in listed and not (len(read) > 1 and all(read[:2])):
            yield f"{node.name} is listed as quantized, and an input of it is not"
        elif node.name not in listed and any(read):
            yield f"{node.name} reads a quantized value and is not listed as quantized"
    for name in sorted(set(listed) - names):
        yield f"{name} is listed as quantized and is not in the graph"


def pair_problems(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], dtype: int
) -> Iterator[str]:
    """What is wrong with the constants of a Q or DQ: its zero point must be of `dtype`."""
    if len(node.input) < 3 or node.input[1] not in weights or node.input[2] not in weights:
        yield f"{node.name} has no constant scale and zero point"
        return
    scale = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
    zero = weights[node.input[2]]
    if zero.data_type != dtype:
        got, wanted = (onnx.TensorProto.DataType.Name(t) for t in (zero.data_type, dtype))
        yield f"{node.name} has a zero point of type {got}, expected {wanted}"
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        yield f"{node.name} has a scale that is not a positive number"


def zero_problems(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> Iterator[str]:
    """Whether the zero point of a Q or DQ is another than 0."""
    zero = weights.get(node.input[2]) if len(node.input) > 2 else None
    if zero is not None and np.any(numpy_helper.to_array(zero).astype(np.float32)):
        yield f"{node.name} has a zero point that is not 0"
