"""The audit: what the written graph computes in, by the checker's own type inference.

Asking for FP16 and getting FP32 is a failure, never a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from sam_deploy.errors import PrecisionError
from sam_deploy.manifest import IslandReport, LargestValue, PrecisionReport
from sam_deploy.precision.islands import Pinned, island_of
from sam_deploy.precision.onnx_types import OF_SHAPES
from sam_deploy.precision.quantize.audit import qdq_problems
from sam_deploy.precision.quantize.audit_around import around_problems
from sam_deploy.quantization import QuantizationReport
from sam_deploy.recipe import FloatPrecision, Precision

_STORED: dict[Precision, int] = {
    "int8": onnx.TensorProto.INT8,
    "fp8": onnx.TensorProto.FLOAT8E4M3FN,
}
_NAMES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.DOUBLE: "fp64",
}
_PRECISIONS = {"fp32", "fp16"}


def audit_precision(
    model: onnx.ModelProto,
    precision: Precision,
    islands: Sequence[IslandReport] = (),
    io_dtype: FloatPrecision = "fp32",
    *,
    island_macs: float = 0.0,
    largest: LargestValue | None = None,
    quantization: QuantizationReport | None = None,
) -> PrecisionReport:
    """Hold the types of `model` against what was asked, and count them.

    `island_macs` and `largest` are what `check_share` and `largest_in_fp16` found, for the report.
    The layers in `quantization` must be quantized, and no others; beside them a quantized model is
    FP16, for a CPU FP32.
    Nodes that touch no floats (sizes, indices) have no precision.

    Types are inferred anew from the inputs and weights; what the graph says of itself is dropped
    from `model`.

    Raises:
        PrecisionError: a node outside `islands` is not in `precision`, a Cast stands elsewhere
            than at the graph's ends and islands, the ends are not `io_dtype`, the types
            contradict each other, or other layers are quantized than were asked for.
    """
    quantized = {layer.name for layer in quantization.layers} if quantization else set()
    for_cpu = quantization is not None and quantization.target == "cpu"
    beside: Precision = "fp32" if for_cpu else "fp16" if quantization else precision
    types = _inferred_types(model)
    groups: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for node in model.graph.node:
        # A Cast is where types change; a node's type is otherwise that of its first float.
        floats = [_NAMES[t] for v in [*node.input, *node.output] if (t := types.get(v)) in _NAMES]
        if not floats or node.op_type in OF_SHAPES:
            continue
        dtype = floats[0]
        counts = groups.setdefault(node.op_type, {})
        counted = precision if node.name in quantized else dtype
        counts[counted] = counts.get(counted, 0) + 1
        expected = "fp32" if island_of(node.name, islands) else beside
        if node.op_type != "Cast" and dtype != expected:
            problems.append(f"{node.name} computes in {dtype}, expected {expected}")
    problems += _foreign_casts(model, types, islands)
    if quantization:
        problems += (
            around_problems(model, quantized)
            if for_cpu
            else qdq_problems(model, quantized, _STORED[precision])
        )
    for value in [*model.graph.input, *model.graph.output]:
        dtype = _NAMES.get(value.type.tensor_type.elem_type, io_dtype)
        if dtype != io_dtype:
            problems.append(f"{value.name} is {dtype}, expected {io_dtype}")
    if problems:
        shown = "\n  ".join(problems[:10])
        remedy = "List a module as an island in the recipe if it must stay in FP32."
        if precision == "fp32":
            remedy = "Let forward compute in the type of its input: no .double(), no .half()."
        raise PrecisionError(
            f"the graph is not in the precision that was asked for ({len(problems)} findings):\n"
            f"  {shown}\n{remedy}"
        )
    return PrecisionReport(
        precision=precision,
        io_dtype=io_dtype,
        islands=list(islands),
        island_macs=island_macs,
        types_by_op=groups,
        largest=largest,
        quantization=quantization,
    )


def _inferred_types(model: onnx.ModelProto) -> dict[str, int]:
    del model.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise PrecisionError(f"the graph's types contradict each other: {error}") from None
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update({weight.name: weight.data_type for weight in inferred.initializer})
    return types


def _foreign_casts(
    model: onnx.ModelProto, types: Mapping[str, int], islands: Sequence[Pinned]
) -> list[str]:
    """Casts among FP32 and FP16 that stand neither at the graph's ends nor at an island."""
    ends = {value.name for value in [*model.graph.input, *model.graph.output]}
    at_island: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Cast" and island_of(node.name, islands):
            at_island.update([*node.input, *node.output])
    return [
        f"{node.name} stands neither at the graph's ends nor at an island"
        for node in model.graph.node
        if node.op_type == "Cast"
        and {_NAMES.get(types.get(v, 0)) for v in (node.input[0], node.output[0])} <= _PRECISIONS
        and not {node.input[0], node.output[0]} & (ends | at_island)
    ]
