"""What ONNX's own operator definitions say of FP16."""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir

from sam_deploy.lowering import OPSET

OF_SHAPES = frozenset({"Shape", "Size"})  # they read no values: any type will do
_HALF, _FLOAT = "tensor(float16)", "tensor(float)"


def has_fp16_form(node: ir.Node) -> bool:
    """Whether the operator takes or gives FP16 anywhere, or has nothing to do with FP32."""
    inputs, outputs = _formals(node.op_type)
    given = [inputs[min(i, len(inputs) - 1)] for i, v in enumerate(node.inputs) if _is_float(v)]
    made = [outputs[min(i, len(outputs) - 1)] for i, v in enumerate(node.outputs) if _is_float(v)]
    floats = given + made
    return not floats or any(_HALF in types for types in floats)


def stays_fp32(node: ir.Node, index: int) -> bool:
    """Whether input `index` must be FP32 though the node computes in FP16: the scales of Resize."""
    inputs, _ = _formals(node.op_type)
    return inputs[min(index, len(inputs) - 1)] == frozenset({_FLOAT})


@cache
def _formals(op_type: str) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    """The types that each formal input and output may have; a variadic one is the last."""
    schema = onnx.defs.get_schema(op_type, OPSET)
    return (
        [frozenset(formal.types) for formal in schema.inputs],
        [frozenset(formal.types) for formal in schema.outputs],
    )


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT
