"""Inference over REST: JSON, and behind it the tensors that are in bytes.

Open Inference Protocol, "Inference", and the binary tensor data extension of Triton: the header
`Inference-Header-Content-Length` says where the JSON ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sam_deploy.serving.datatypes import array_of_raw, raw_of_array
from sam_deploy.serving.failures import BadRequest
from sam_deploy.serving.json_data import array_of_data, data_of_array
from sam_deploy.serving.message import InferRequest, InferResponse, Tensor, Wanted

_MOST_MICROSECONDS = 10**12


class _InputParameters(msgspec.Struct):
    binary_data_size: int | None = None
    shared_memory_region: Any = None


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _InputParameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: Any = None


class _Output(msgspec.Struct):
    name: str
    parameters: _OutputParameters | None = None


class _Parameters(msgspec.Struct):
    binary_data_output: bool = False
    timeout: int | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = []
    parameters: _Parameters | None = None


_decoder = msgspec.json.Decoder(_Request)
_encoder = msgspec.json.Encoder()


def decode_infer(model: str, version: str, body: bytes, json_bytes: int | None) -> InferRequest:
    """The request in `body`, whose first `json_bytes` are JSON; None is all of it.

    Raises:
        BadRequest: it is not one; says what is wrong with it.
    """
    view = memoryview(body)
    size = len(view) if json_bytes is None else json_bytes
    if not 0 <= size <= len(view):
        raise BadRequest(
            f"Inference-Header-Content-Length is {size}; the body has {len(view)} bytes"
        )
    try:
        header = _decoder.decode(view[:size])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not an inference request: {error}") from None
    parameters = header.parameters or _Parameters()
    return InferRequest(
        model,
        version,
        header.id,
        _inputs(header.inputs, view[size:]),
        tuple(_wanted(output) for output in header.outputs),
        parameters.binary_data_output,
        timeout_of(parameters.timeout),
    )


def timeout_of(microseconds: int | None) -> float | None:
    """Seconds of Triton's request parameter `timeout`; 0 is none.

    Raises:
        BadRequest: it is negative or beyond all reason.
    """
    if not microseconds:
        return None
    if not 0 < microseconds <= _MOST_MICROSECONDS:
        raise BadRequest(f"the timeout is {microseconds}; expected microseconds")
    return microseconds / 1e6


def encode_infer(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON where others follow.

    Raises:
        BadRequest: an output has NaN or infinity, which JSON has no form for.
    """
    binary = {wanted.name: wanted.binary for wanted in request.wanted}
    outputs, raws = [], []
    for tensor in response.outputs:
        as_bytes = binary.get(tensor.name)
        described: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.array.shape,
        }
        if request.binary if as_bytes is None else as_bytes:
            raws.append(raw_of_array(tensor.array))
            described["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            described["data"] = data_of_array(tensor.name, tensor.array)
        outputs.append(described)
    header: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        header["id"] = response.id
    if response.parameters:
        header["parameters"] = response.parameters
    encoded = _encoder.encode({**header, "outputs": outputs})
    return b"".join([encoded, *raws]), (len(encoded) if raws else None)


def _inputs(described: Sequence[_Input], rest: memoryview) -> tuple[Tensor, ...]:
    tensors = []
    place = 0
    for one in described:
        what = f"input {one.name[:80]!r}"
        parameters = one.parameters or _InputParameters()
        if parameters.shared_memory_region is not None:
            raise BadRequest(f"{what} is in shared memory, which is not supported; send its data")
        size = parameters.binary_data_size
        if (size is None) == (not memoryview(one.data)):
            raise BadRequest(f"{what} needs either data or binary_data_size")
        if size is None:
            array = array_of_data(one.data, one.datatype, one.shape, what)
        else:
            if not 0 <= size <= len(rest) - place:
                raise BadRequest(
                    f"{what} has binary_data_size {size}; {len(rest) - place} bytes are left"
                )
            array = array_of_raw(rest[place : place + size], one.datatype, one.shape, what)
            place += size
        tensors.append(Tensor(one.name, one.datatype, array))
    if place != len(rest):
        raise BadRequest(f"{len(rest) - place} bytes follow the last input")
    return tuple(tensors)


def _wanted(output: _Output) -> Wanted:
    parameters = output.parameters or _OutputParameters()
    if parameters.shared_memory_region is not None:
        raise BadRequest(f"output {output.name[:80]!r} is wanted in shared memory: not supported")
    if parameters.classification < 0:
        raise BadRequest(f"classification is {parameters.classification}; expected 1 or more")
    return Wanted(output.name, parameters.binary_data, parameters.classification)
