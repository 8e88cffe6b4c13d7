"""The graph run over the calibration samples: what its activations reach, and how often.

Everything is gathered batch by batch: memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from sam_deploy.errors import InputError
from sam_deploy.precision.quantize.observed import Observed
from sam_deploy.precision.quantize.places import Places
from sam_deploy.precision.quantize.smoothing import Smoothable
from sam_deploy.runner import Array, FloatArray, Runner

_SUFFIX = "|channels"


def write_observed(model: ir.Model, activations: Sequence[ir.Value], path: Path) -> None:
    """Write the FP32 graph `model` to `path` with `activations` as its outputs."""
    _write(model, {value.name or "": () for value in activations}, path)


def write_channels(model: ir.Model, places: Sequence[Smoothable], path: Path) -> None:
    """Write the FP32 graph `model` to `path` with max |x| of every channel at `places`."""
    _write(model, {place.name: _others(place) for place in places}, path)


def _others(place: Smoothable) -> tuple[int, ...]:
    return tuple(i for i in range(len(place.activation.shape or ())) if i != place.axis)


def _write(model: ir.Model, wanted: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Each output is taken right behind the node that makes it, reduced over the axes given."""
    proto = ir.to_proto(model)
    nodes = list(proto.graph.node)
    del proto.graph.output[:], proto.graph.node[:]
    for value in proto.graph.input:
        _take(proto.graph, value.name, wanted)
    for node in nodes:
        proto.graph.node.append(node)
        for name in node.output:
            _take(proto.graph, name, wanted)
    onnx.save(proto, path)


def _take(graph: onnx.GraphProto, name: str, wanted: Mapping[str, tuple[int, ...]]) -> None:
    if name not in wanted:
        return
    output = name
    if wanted[name]:
        axes, absolute, output = f"{name}|axes", f"{name}|abs", name + _SUFFIX
        graph.initializer.append(
            helper.make_tensor(axes, TensorProto.INT64, [len(wanted[name])], wanted[name])
        )
        graph.node.append(helper.make_node("Abs", [name], [absolute]))
        graph.node.append(helper.make_node("ReduceMax", [absolute, axes], [output], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))


def observe(
    runner: Runner,
    batches: Iterable[Mapping[str, Array]],
    readers: Mapping[str, Sequence[Places]],
    rows: int,
) -> dict[str, Observed]:
    """What each activation is over all `batches`, by its name; `readers` say how it is read, and
    `rows` at most of each batch are looked at for how they go together.

    Raises:
        InputError: an activation is not finite, or there were no batches.
    """
    gathered: dict[str, Observed] = {}
    for batch in batches:
        for name, array in runner.run(batch).items():
            try:
                gathered.setdefault(name, Observed(readers.get(name, ()), rows)).update(array)
            except ValueError as error:
                raise _not_finite(name, error) from None
    if not gathered:
        raise InputError("there are no calibration samples. Give some with --calibration.")
    return gathered


def channel_maxima(runner: Runner, batches: Iterable[Mapping[str, Array]]) -> dict[str, FloatArray]:
    """Max |x| of every channel over all `batches`, by the activation's name.

    Raises:
        InputError: an activation is not finite.
    """
    largest: dict[str, FloatArray] = {}
    for batch in batches:
        for name, array in runner.run(batch).items():
            key = name.removesuffix(_SUFFIX)
            if not np.isfinite(array).all():
                raise _not_finite(key, ValueError("it holds NaN or infinity"))
            largest[key] = np.maximum(largest.get(key, 0.0), array)
    return largest


def _not_finite(name: str, error: ValueError) -> InputError:
    return InputError(
        f"the activation {name} cannot be calibrated: {error}. Check the weights, and that the "
        "calibration samples are preprocessed as the model expects."
    )
