"""Inference over gRPC: tritonclient's messages, contents raw or typed.

Open Inference Protocol, "GRPC", `ModelInferRequest` and `ModelInferResponse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from sam_deploy.runner import Array
from sam_deploy.serving.datatypes import (
    BYTES,
    array_of_raw,
    bytes_array,
    dtype_of,
    elements_of,
    raw_of_array,
)
from sam_deploy.serving.failures import BadRequest
from sam_deploy.serving.json_codec import timeout_of
from sam_deploy.serving.message import InferRequest, InferResponse, Tensor, Wanted
from sam_deploy.serving.raw_contents import without_raw_contents

_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def parse_infer(data: bytes) -> tuple[Any, Sequence[memoryview]]:
    """The `ModelInferRequest` in `data`, and its raw contents, which need not be in it.

    Raises:
        DecodeError: `data` is no such message.
    """
    rest, raws = without_raw_contents(data)
    message = service_pb2.ModelInferRequest.FromString(rest)
    return message, raws or [memoryview(raw) for raw in message.raw_input_contents]


def decode_infer(message: Any, raws: Sequence[memoryview]) -> InferRequest:
    """The request in a `ModelInferRequest` as `parse_infer` gives it.

    Raises:
        BadRequest: it is not whole; says what is wrong with it.
    """
    if raws and len(raws) != len(message.inputs):
        raise BadRequest(
            f"{len(raws)} raw_input_contents for {len(message.inputs)} inputs; "
            "expected one for each, or none"
        )
    inputs = []
    for number, one in enumerate(message.inputs):
        what = f"input {one.name[:80]!r}"
        if "shared_memory_region" in one.parameters:
            raise BadRequest(f"{what} is in shared memory, which is not supported; send its data")
        if raws:
            if one.HasField("contents"):
                raise BadRequest(f"{what} has contents beside raw_input_contents")
            array = array_of_raw(raws[number], one.datatype, one.shape, what)
        else:
            array = _typed(one.contents, one.datatype, one.shape, what)
        inputs.append(Tensor(one.name, one.datatype, array))
    return InferRequest(
        message.model_name,
        message.model_version,
        message.id,
        tuple(inputs),
        tuple(_wanted(output) for output in message.outputs),
        timeout_s=timeout_of(_integer(message.parameters, "timeout")),
    )


def encode_infer(response: InferResponse) -> Any:
    """The `ModelInferResponse`, contents raw."""
    message = service_pb2.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for key, value in response.parameters.items():
        message.parameters[key].string_param = value
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_output_contents.append(raw_of_array(tensor.array))
    return message


def _typed(contents: Any, datatype: str, shape: Sequence[int], what: str) -> Array:
    dtype = dtype_of(datatype)
    if datatype not in _FIELDS:
        raise BadRequest(f"{what} is {datatype}, which has no typed contents; send it raw")
    elements = getattr(contents, _FIELDS[datatype])
    count = elements_of(shape, what)
    if len(elements) != count:
        raise BadRequest(
            f"{what} has {len(elements)} {_FIELDS[datatype]}; {list(shape)} takes {count}"
        )
    if datatype == BYTES:
        return bytes_array(list(elements), shape)
    wide = np.array(elements, dtype if dtype.kind in "bf" or dtype.itemsize > 4 else np.int64)
    if dtype.kind in "iu" and count:
        range_ = np.iinfo(dtype)
        if wide.min() < range_.min or wide.max() > range_.max:
            raise BadRequest(f"{what} has elements beyond the range of {datatype}")
    return wide.astype(dtype, copy=False).reshape(shape)


def _wanted(output: Any) -> Wanted:
    if "shared_memory_region" in output.parameters:
        raise BadRequest(f"output {output.name[:80]!r} is wanted in shared memory: not supported")
    classes = _integer(output.parameters, "classification") or 0
    if classes < 0:
        raise BadRequest(f"classification is {classes}; expected 1 or more")
    return Wanted(output.name, classes=classes)


def _integer(parameters: Any, name: str) -> int | None:
    """An integer parameter; Triton takes them as such alone.

    Raises:
        BadRequest: it is there and no integer.
    """
    if name not in parameters:
        return None
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise BadRequest(f"the parameter {name} is no integer")
    return int(getattr(parameters[name], kind))
