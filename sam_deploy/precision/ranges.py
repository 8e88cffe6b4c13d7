"""How large every value of a graph becomes in FP32, to know before typing it what FP16 cannot hold.

ONNX Runtime's CPU provider computes FP16 in FP32 and so hides an overflow; a GPU does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from sam_deploy.errors import PrecisionError
from sam_deploy.manifest import LargestValue
from sam_deploy.precision.fp16 import FP16_MAX
from sam_deploy.precision.islands import island_of
from sam_deploy.recipe import Island

MARGIN = 4.0  # other images reach further than these
LIMIT = FP16_MAX / MARGIN
_SUFFIX = "|largest"


class Runner(Protocol):
    """What runs the instrumented graph."""

    def run(
        self, inputs: Mapping[str, npt.NDArray[np.floating[Any]]]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Arrays by input name to arrays by output name."""
        ...


def write_instrumented(model: ir.Model, path: Path) -> None:
    """Write the FP32 graph `model` to `path` with max |x| of every float value as its outputs."""
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    produced = [value for node in model.graph for value in node.outputs]
    for value in [*model.graph.inputs, *produced]:
        if value.dtype != ir.DataType.FLOAT or value.name is None:
            continue
        absolute, largest = f"{value.name}|abs", value.name + _SUFFIX
        proto.graph.node.extend(
            [
                helper.make_node("Abs", [value.name], [absolute]),
                helper.make_node("ReduceMax", [absolute], [largest], keepdims=0),
            ]
        )
        proto.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    onnx.save(proto, path)


def largest_values(
    runner: Runner, input_name: str, batches: Iterable[npt.NDArray[np.float32]]
) -> dict[str, float]:
    """Max |x| over all `batches`, by value name; infinite where something is not finite."""
    largest: dict[str, float] = {}
    for batch in batches:
        for name, array in runner.run({input_name: batch}).items():
            value = float(array)
            key = name.removesuffix(_SUFFIX)
            largest[key] = max(largest.get(key, 0.0), value if np.isfinite(value) else np.inf)
    return largest


def check_ranges(
    model: ir.Model, largest: Mapping[str, float], islands: Sequence[Island]
) -> LargestValue:
    """Hold every value that FP16 would have to carry against its range; the largest of them.

    A value is carried in FP16 unless its producer and all that read it are in islands.

    Raises:
        PrecisionError: naming the values beyond a quarter of FP16's range, and what to do.
    """
    carried: dict[str, float] = {}
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        name, producer = value.name or "", value.producer()
        nodes = [user for user, _ in value.uses()] + ([producer] if producer is not None else [])
        if name in largest and not all(island_of(node.name or "", islands) for node in nodes):
            carried[name] = largest[name]
    beyond = {name: value for name, value in carried.items() if not value <= LIMIT}
    if beyond:
        shown = "\n  ".join(f"{name} reaches {value:.3g}" for name, value in beyond.items())
        raise PrecisionError(
            f"FP16 ends at {FP16_MAX:g}, and a margin of {MARGIN:g} is kept to it:\n  {shown}\n"
            "Export in FP32, or list the modules that compute and read these values as [[islands]] "
            "in the recipe."
        )
    name = max(carried, key=carried.__getitem__)
    return LargestValue(name=name, value=carried[name])
