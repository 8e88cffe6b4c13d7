"""The islands that nobody had to list: what FP16 cannot hold stays in FP32.

ONNX Runtime's CPU provider computes FP16 in FP32 and so hides an overflow; a GPU does not. So it
is judged from what every value reached in FP32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from sam_deploy.errors import PrecisionError
from sam_deploy.manifest import IslandReport
from sam_deploy.precision.fp16 import FP16_MAX, check_weights, is_constant, magnitude
from sam_deploy.precision.islands import Pinned, is_in, module_of
from sam_deploy.precision.macs import multiply_adds
from sam_deploy.precision.onnx_types import has_fp16_form
from sam_deploy.recipe import FloatPrecision

FP16_TINY = 2.0**-14  # the smallest number that FP16 holds with all its digits
_HANDING_ON = frozenset({"Expand", "Identity", "Reshape", "Sqrt", "Squeeze", "Unsqueeze"})
_Found = dict[ir.Node, tuple[float | None, str]]
MARGIN = 4.0  # other images reach further than these
LIMIT = FP16_MAX / MARGIN


def overflow_islands(
    model: ir.Model,
    largest: Mapping[str, float],
    islands: Sequence[Pinned] = (),
    io_dtype: FloatPrecision = "fp32",
) -> list[IslandReport]:
    """An island for every node of the FP32 graph that gives or reads what FP16 cannot carry.

    `largest` is what each value reached (`largest_values`). A value beyond a quarter of FP16's
    range makes islands of the node that computes it and of those that read it, unless `islands`
    hold them. So does a constant that no layer multiplies by, such as the -1e9 of a mask, or an
    epsilon that FP16 would round away.

    Raises:
        PrecisionError: where no island is made: a weight beyond FP16's range, an input or output
            of the graph that is to be FP16. The message names the module.
    """
    check_weights(model.graph, islands, constants=False)
    found: _Found = {}
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        reached = largest.get(value.name or "")
        if reached is None or reached <= LIMIT:
            continue
        _check_end(model.graph, value, reached, io_dtype)
        _claim(found, [value.producer(), *(user for user, _ in value.uses())], value, reached)
    for value in model.graph.initializers.values():
        if value.dtype != ir.DataType.FLOAT or not is_constant(value):
            continue
        reached = magnitude(value)
        users = [user for user, _ in value.uses()]
        if not reached <= LIMIT:
            _claim(found, users, value, reached)
        elif 0 < reached < FP16_TINY:
            for node in _up_to_arithmetic(users):  # else it is 0 by the division that it guards
                reason = f"{value.name} is {reached:.3g}, FP16 begins at {FP16_TINY:.3g}"
                found.setdefault(node, (None, reason))
    return [
        IslandReport(match=node.name or "", reason=reason, largest=reached)
        for node in model.graph
        if node in found and not is_in(node, islands)
        for reached, reason in [found[node]]
    ]


def fp32_only_islands(model: ir.Model, islands: Sequence[Pinned] = ()) -> list[IslandReport]:
    """An island for every node whose operator ONNX does not define for FP16."""
    return [
        IslandReport(match=node.name or "", reason=f"ONNX has no {node.op_type} in FP16")
        for node in model.graph
        if not has_fp16_form(node) and not is_in(node, islands)
    ]


def check_share(model: ir.Model, islands: Sequence[Pinned], allowed: float) -> float:
    """The part of the multiply-adds that stands in `islands`.

    Raises:
        PrecisionError: more than `allowed`.
    """
    counts = {node: multiply_adds(node) for node in model.graph}
    inside = sum(count for node, count in counts.items() if is_in(node, islands))
    share = inside / max(sum(counts.values()), 1)
    if share > allowed:
        shown = "\n  ".join(f"{island.match}: {island.reason}" for island in islands[:10])
        more = f"\n  and {len(islands) - 10} more" if len(islands) > 10 else ""
        raise PrecisionError(
            f"{share:.1%} of the multiply-adds would stay in FP32, allowed are {allowed:.1%}:\n"
            f"  {shown}{more}\n"
            "That is no FP16 model. Export in FP32, or allow it with --allow-islands "
            f"{min(np.ceil(share * 100) / 100, 1.0):g} (allow_islands in a recipe)."
        )
    return share


def _up_to_arithmetic(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """`nodes` and what reads their results, through what only hands them on."""
    reached, waiting = list(nodes), list(nodes)
    while waiting:
        node = waiting.pop()
        readers = [user for value in node.outputs for user, _ in value.uses()]
        reached += readers
        waiting += [reader for reader in readers if reader.op_type in _HANDING_ON]
    return reached


def _claim(
    found: _Found,
    nodes: Sequence[ir.Node | None],
    value: ir.Value,
    reached: float,
) -> None:
    reason = f"{value.name} reaches {reached:.3g}, FP16 ends at {FP16_MAX:g}"
    for node in nodes:
        if node is not None and not reached <= (found.get(node, (0.0, ""))[0] or 0.0):
            found[node] = (reached, reason)


def _check_end(graph: ir.Graph, value: ir.Value, reached: float, io_dtype: FloatPrecision) -> None:
    if io_dtype != "fp16" or not (value in graph.inputs or value in graph.outputs):
        return
    end = "input" if value in graph.inputs else "output"
    raise PrecisionError(
        f"the {end} {value.name}{module_of(value)} reaches {reached:.3g} and is to be FP16, which "
        f"ends at {FP16_MAX:g} (a margin of {MARGIN:g} is kept). Leave inputs and outputs in FP32: "
        "without --io-dtype fp16."
    )
