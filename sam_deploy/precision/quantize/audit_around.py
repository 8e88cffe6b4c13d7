"""The audit of explicit quantization for CPUs: listed layers are of integers on every side, and
nothing else is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sam_deploy.precision.quantize.audit import pair_problems, zero_problems
from sam_deploy.precision.quantize.grids import INT8_BY_UINT8

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
_ZEROS = {"activation": TensorProto.UINT8, "weight": TensorProto.INT8, "bias": TensorProto.INT32}
_PLACES = ("activation", "weight", "bias")  # of a layer's inputs


def around_problems(model: onnx.ModelProto, listed: Collection[str]) -> Iterator[str]:
    """What contradicts it that just the layers `listed` compute in integers.

    Every input of theirs must come from a DQ, activations of UINT8, weights of INT8 with a zero
    point of 0 and within what does not saturate, biases of INT32; all that reads what they make
    must be a Q. Every Q must be at such a layer, its scale a positive constant that its DQ has too.
    """
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    at_layers: set[str] = set()
    names = set()
    for node in graph.node:
        names.add(node.name)
        if node.name in listed:
            yield from _layer_problems(node, weights, makers)
            yield from _bias_problems(node, weights, makers)
            output = node.output[0]
            around = [reader.op_type == "QuantizeLinear" for reader in readers.get(output, [])]
            if not (around and all(around)):
                yield f"{node.name} is listed as quantized, and what it makes is not"
            at_layers |= {output, *node.input}
        elif node.op_type in _LAYERS and _reads_weight(node, weights, makers):
            yield f"{node.name} reads a quantized weight and is not listed as quantized"
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        pairs = readers.get(node.output[0], [])
        if not pairs or any(pair.op_type != "DequantizeLinear" for pair in pairs):
            yield f"{node.name} is not followed by its DequantizeLinear"
        elif any(pair.input[1:3] != node.input[1:3] for pair in pairs):
            yield f"{node.name} has another scale or zero point than its DequantizeLinear"
        elif node.input[0] not in at_layers and not {p.output[0] for p in pairs} & at_layers:
            yield f"{node.name} is at no layer that is listed as quantized"
        yield from pair_problems(node, weights, TensorProto.UINT8)
    for name in sorted(set(listed) - names):
        yield f"{name} is listed as quantized and is not in the graph"


def _layer_problems(
    node: onnx.NodeProto,
    weights: Mapping[str, onnx.TensorProto],
    makers: Mapping[str, onnx.NodeProto],
) -> Iterator[str]:
    for place, name in zip(_PLACES, node.input, strict=False):
        if not name:  # an input that is left out
            continue
        dq = _from_dq(name, makers)
        if dq is None:
            yield f"{node.name} is listed as quantized, and its {place} is not"
            continue
        yield from pair_problems(dq, weights, _ZEROS[place])
        if place == "activation":
            q = makers.get(dq.input[0])
            if q is None or q.op_type != "QuantizeLinear":
                yield f"{node.name} is listed as quantized, and its activation is not"
            continue
        if dq.input[0] not in weights or len(dq.input) < 3:
            yield f"{node.name} has a {place} that is no constant"
            continue
        axis = next((a.i for a in dq.attribute if a.name == "axis"), 1)
        if axis != (_output_axis(node) if place == "weight" else 0):
            yield f"{node.name} has a {place} with scales along axis {axis}, not its outputs"
        yield from zero_problems(dq, weights)
        units = numpy_helper.to_array(weights[dq.input[0]]).astype(np.int64)
        if place == "weight" and np.abs(units).max(initial=0) > INT8_BY_UINT8.largest:
            yield (
                f"{node.name} has a weight of {np.abs(units).max()} units, at most "
                f"{INT8_BY_UINT8.largest:.0f} are safe: processors without VNNI would saturate"
            )


def _bias_problems(
    node: onnx.NodeProto,
    weights: Mapping[str, onnx.TensorProto],
    makers: Mapping[str, onnx.NodeProto],
) -> Iterator[str]:
    """Integer kernels take a bias for one in units of the products, whatever its DQ says."""
    found = [_from_dq(name, makers) for name in node.input]
    scales = [weights.get(dq.input[1]) for dq in found if dq is not None]
    if len(scales) < len(_PLACES) or None in scales:
        return
    of_x, of_weight, of_bias = (numpy_helper.to_array(scale) for scale in scales if scale)
    if not np.allclose(of_bias, of_x * of_weight, rtol=1e-6, atol=0):
        yield f"{node.name} has a bias in other units than its products"


def _output_axis(node: onnx.NodeProto) -> int:
    """That of a weight's outputs."""
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def _reads_weight(
    node: onnx.NodeProto,
    weights: Mapping[str, onnx.TensorProto],
    makers: Mapping[str, onnx.NodeProto],
) -> bool:
    """Whether `node` has a quantized weight, and not the product of another layer."""
    dq = _from_dq(node.input[1], makers)
    return dq is not None and dq.input[0] in weights


def _from_dq(name: str, makers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    node = makers.get(name)
    return node if node is not None and node.op_type == "DequantizeLinear" else None
