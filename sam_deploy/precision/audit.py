"""The audit: what the written graph computes in, by the checker's own type inference.

Asking for FP16 and getting FP32 is a failure, never a warning.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from sam_deploy.errors import PrecisionError
from sam_deploy.manifest import LargestValue, PrecisionReport
from sam_deploy.precision.islands import island_of
from sam_deploy.recipe import Island, Precision

_NAMES: dict[int, str] = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}


def audit_precision(
    model: onnx.ModelProto,
    precision: Precision,
    islands: Sequence[Island] = (),
    io_dtype: Precision = "fp32",
    largest: LargestValue | None = None,
) -> PrecisionReport:
    """Hold the types of `model` against what was asked, and count them.

    `largest` is what `check_ranges` found, for the report.

    Types are inferred anew from the inputs and weights; what the graph says of itself is dropped
    from `model`.

    Raises:
        PrecisionError: a node outside `islands` is not in `precision`, a Cast stands elsewhere
            than at the graph's ends and islands, the ends are not `io_dtype`, or the types
            contradict each other.
    """
    types = _inferred_types(model)
    groups: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for node in model.graph.node:
        # A Cast is where types change; a node's type is otherwise that of its first input.
        dtype = _NAMES.get(types.get(next(iter(node.input), ""), 0), "other")
        counts = groups.setdefault(node.op_type, {})
        counts[dtype] = counts.get(dtype, 0) + 1
        expected = "fp32" if island_of(node.name, islands) else precision
        if node.op_type != "Cast" and dtype != expected:
            problems.append(f"{node.name} computes in {dtype}, expected {expected}")
    problems += _foreign_casts(model, islands)
    for value in [*model.graph.input, *model.graph.output]:
        dtype = _NAMES.get(value.type.tensor_type.elem_type, "other")
        if dtype != io_dtype:
            problems.append(f"{value.name} is {dtype}, expected {io_dtype}")
    if problems:
        shown = "\n  ".join(problems[:10])
        raise PrecisionError(
            f"the graph is not in the precision that was asked for ({len(problems)} findings):\n"
            f"  {shown}\nList a module as an island in the recipe if it must stay in FP32."
        )
    return PrecisionReport(
        precision=precision,
        io_dtype=io_dtype,
        islands=list(islands),
        types_by_op=groups,
        largest=largest,
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


def _foreign_casts(model: onnx.ModelProto, islands: Sequence[Island]) -> list[str]:
    ends = {value.name for value in [*model.graph.input, *model.graph.output]}
    at_island: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Cast" and island_of(node.name, islands):
            at_island.update([*node.input, *node.output])
    return [
        f"{node.name} stands neither at the graph's ends nor at an island"
        for node in model.graph.node
        if node.op_type == "Cast" and not {node.input[0], node.output[0]} & (ends | at_island)
    ]
