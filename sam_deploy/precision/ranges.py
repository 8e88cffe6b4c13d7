"""How large every value of a graph becomes in FP32, to know before typing it what FP16 cannot hold.

ONNX Runtime's CPU provider computes FP16 in FP32 and so hides an overflow; a GPU does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from sam_deploy.manifest import LargestValue
from sam_deploy.precision.islands import Pinned, is_in
from sam_deploy.runner import Array, Runner

_SUFFIX = "|largest"


def write_instrumented(model: ir.Model, path: Path) -> None:
    """Write the graph `model` to `path` with max |x| of every float value as its outputs.

    Of FP16 values it is taken in FP32: on ONNX Runtime's CPU provider, which computes them so, it
    is what a GPU would have to hold. Each is taken right behind the node that makes the value: run
    in this order, no value lives longer than in the graph itself.
    """
    proto = ir.to_proto(model)
    nodes = list(proto.graph.node)
    del proto.graph.output[:], proto.graph.node[:]
    for value in model.graph.inputs:
        _measure(proto.graph, value)
    for node, written in zip(model.graph, nodes, strict=True):
        proto.graph.node.append(written)
        for value in node.outputs:
            _measure(proto.graph, value)
    onnx.save(proto, path)


def _measure(graph: onnx.GraphProto, value: ir.Value) -> None:
    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16) or value.name is None:
        return
    absolute, largest, measured = f"{value.name}|abs", value.name + _SUFFIX, value.name
    if value.dtype == ir.DataType.FLOAT16:
        measured = f"{value.name}|fp32"
        graph.node.append(helper.make_node("Cast", [value.name], [measured], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Abs", [measured], [absolute]))
    graph.node.append(helper.make_node("ReduceMax", [absolute], [largest], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))


def largest_values(runner: Runner, batches: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """Max |x| over all `batches`, by value name; infinite where something is not finite."""
    largest: dict[str, float] = {}
    for batch in batches:
        for name, array in runner.run(batch).items():
            value = float(array)
            key = name.removesuffix(_SUFFIX)
            largest[key] = max(largest.get(key, 0.0), value if np.isfinite(value) else np.inf)
    return largest


def largest_in_fp16(
    model: ir.Model, largest: Mapping[str, float], islands: Sequence[Pinned]
) -> LargestValue | None:
    """The largest of the values that FP16 carries: not between nodes of `islands` alone."""
    carried: dict[str, float] = {}
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        name, producer = value.name or "", value.producer()
        nodes = [user for user, _ in value.uses()] + ([producer] if producer is not None else [])
        if name in largest and not all(is_in(node, islands) for node in nodes):
            carried[name] = largest[name]
    if not carried:
        return None
    name = max(carried, key=carried.__getitem__)
    return LargestValue(name=name, value=carried[name])
