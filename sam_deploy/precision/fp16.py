"""FP16 as types in the graph: weights and activations FP16, islands FP32, Casts only between.

TensorRT 11 and TensorRT-RTX have no other way: networks are strongly typed, the types in the ONNX
graph decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from sam_deploy.errors import PrecisionError
from sam_deploy.precision.islands import Pinned, is_in, island_of, module_of
from sam_deploy.precision.onnx_types import OF_SHAPES, stays_fp32
from sam_deploy.recipe import FloatPrecision

FP16_MAX = 65504.0
_LAYERS = frozenset(
    {
        *("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN", "PRelu"),
        *("LayerNormalization", "BatchNormalization", "InstanceNormalization"),
        *("GroupNormalization", "QuantizeLinear", "DequantizeLinear"),
    }
)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def to_fp16(
    model: ir.Model, islands: Sequence[Pinned] = (), io_dtype: FloatPrecision = "fp32"
) -> None:
    """Type the FP32 graph `model` in FP16, in place, but for `islands` and, by default, its ends.

    LayerNormalization takes and gives FP16 and computes in FP32 (stash_type 1).

    Raises:
        PrecisionError: a weight is beyond FP16's range, or an island names nothing.
    """
    graph = model.graph
    _check_islands(graph, islands)
    check_weights(graph, islands)
    wanted = {
        node: ir.DataType.FLOAT if is_in(node, islands) else ir.DataType.FLOAT16 for node in graph
    }
    _convert_weights(graph, wanted)
    ends = ir.DataType.FLOAT16 if io_dtype == "fp16" else ir.DataType.FLOAT
    for given in graph.inputs:
        if given.dtype in _FLOATS:
            given.type = ir.TensorType(ends)
    casts = _Casts(graph)
    for node in list(graph):
        if node.op_type in OF_SHAPES:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in _FLOATS:
                continue
            dtype = ir.DataType.FLOAT if stays_fp32(node, index) else wanted[node]
            if value.dtype != dtype:
                node.replace_input_with(index, casts.before(node, value, dtype))
        _retype_attributes(node, wanted[node])
        for output in node.outputs:
            if output.dtype in _FLOATS:
                output.type = ir.TensorType(wanted[node])  # values may share one type object
    casts.at_outputs(ends)


def check_weights(graph: ir.Graph, islands: Sequence[Pinned], *, constants: bool = True) -> None:
    """Refuse weights that FP16 cannot hold, but for those that only `islands` read.

    Without `constants` only what layers multiply by is looked at, not the -1e9 of a mask.

    Raises:
        PrecisionError: naming the weight and its module.
    """
    for name, value in graph.initializers.items():
        if value.dtype != ir.DataType.FLOAT or (is_constant(value) and not constants):
            continue
        largest = magnitude(value)
        if not largest <= FP16_MAX and not all(is_in(user, islands) for user, _ in value.uses()):
            raise PrecisionError(
                f"the weight {name}{module_of(value)} holds {largest:g}; FP16 ends at "
                f"{FP16_MAX:g}. Export in FP32, or list its module under [[islands]] in the recipe."
            )


def magnitude(value: ir.Value) -> float:
    """Max |x| of a weight."""
    assert value.const_value is not None
    return float(np.abs(value.const_value.numpy()).max(initial=0.0))


def is_constant(value: ir.Value) -> bool:
    """Whether a weight is none of a layer: a number or a mask that is added or compared."""
    return not any(user.op_type in _LAYERS for user, _ in value.uses())


def _retype_attributes(node: ir.Node, dtype: ir.DataType) -> None:
    """Where an attribute says FP32 (Cast, ConstantOfShape, EyeLike), let it say `dtype`."""
    for name in ("to", "dtype"):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.as_int() == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrInt64(name, dtype.value)
    value = node.attributes.get("value")
    if value is not None and value.type == ir.AttributeType.TENSOR:
        tensor = value.as_tensor()
        if tensor.dtype == ir.DataType.FLOAT:
            typed = ir.tensor(tensor.numpy().astype(dtype.numpy()), name=tensor.name)
            node.attributes["value"] = ir.AttrTensor("value", typed)


def _check_islands(graph: ir.Graph, islands: Sequence[Pinned]) -> None:
    for island in islands:
        if not any(island_of(node.name or "", [island]) for node in graph):
            raise PrecisionError(
                f"island {island.match!r} names no module or node of the graph. Take a path such "
                f"as {(next(iter(graph)).name or '').rpartition('/')[0]!r}."
            )


def _convert_weights(graph: ir.Graph, wanted: dict[ir.Node, ir.DataType]) -> None:
    for name, value in list(graph.initializers.items()):
        uses = [
            use
            for use in value.uses()
            if wanted[use[0]] == ir.DataType.FLOAT16 and not stays_fp32(*use)
        ]
        if value.dtype != ir.DataType.FLOAT or not uses:
            continue
        assert value.const_value is not None
        weight = value.const_value.numpy()
        half = value
        if len(uses) < len(value.uses()):  # an island reads it too: that keeps the FP32 values
            half = ir.Value(name=f"{name}.fp16", shape=value.shape)
        half.const_value = ir.tensor(weight.astype(np.float16), name=half.name)
        half.type = ir.TensorType(ir.DataType.FLOAT16)  # a clone's value may share its type object
        graph.register_initializer(half)
        for node, index in uses:
            node.replace_input_with(index, half)


class _Casts:
    """Inserts Casts, one for each value and type, named after the module that asks for it."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._names = {node.name for node in graph}
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def before(self, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` as `dtype`, computed no later than before `node`."""
        key = (value, dtype)
        if key not in self._made:
            path = (node.name or "").rpartition("/")[0]
            cast = self._cast(value, dtype, f"{path}/Cast" if path else "Cast")
            self._graph.insert_before(node, cast)
            self._made[key] = cast.outputs[0]
        return self._made[key]

    def at_outputs(self, dtype: ir.DataType) -> None:
        """Give the graph's outputs `dtype`; they keep their names."""
        for index, value in enumerate(self._graph.outputs):
            if value.dtype not in _FLOATS or value.dtype == dtype:
                continue
            name, producer = value.name, value.producer()
            assert producer is not None
            cast = self._made.get((value, dtype))  # an island in the graph may read it so already
            if cast is None:
                path = (producer.name or "").rpartition("/")[0]
                node = self._cast(value, dtype, f"{path}/Cast" if path else "Cast")
                self._graph.insert_after(producer, node)
                cast = node.outputs[0]
            value.name = f"{producer.name}:{value.index()}"
            cast.name = name
            self._graph.outputs[index] = cast

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
        unique = name
        count = 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        node = ir.node("Cast", inputs=[value], attributes={"to": dtype.value}, name=unique)
        output = node.outputs[0]
        output.name, output.dtype, output.shape = f"{unique}:0", dtype, value.shape
        return node
