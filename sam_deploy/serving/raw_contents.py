"""Raw tensors taken out of a gRPC message before it is parsed: views, where protobuf copies twice.

Protocol Buffers, "Encoding": a message is fields, each a key (number and wire type) and a value.
"""

from __future__ import annotations

from tritonclient.grpc import service_pb2

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_FIELD = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW = _FIELD << 3 | _SIZED
_MOST_FIELDS = 64  # of one with more, all is left to protobuf: it is faster at small ones
_VARINT_BYTES = 10


def without_raw_contents(data: bytes) -> tuple[bytes, list[memoryview]]:
    """The ModelInferRequest in `data` without its raw_input_contents, and these.

    Of what is no such message nothing is taken out: protobuf says what is wrong with it.
    """
    view, at = memoryview(data), 0
    kept: list[memoryview] = []
    raws: list[memoryview] = []
    try:
        for _ in range(_MOST_FIELDS):
            if at == len(data):
                return (b"".join(kept), raws) if raws else (data, [])
            key, begun = _varint(data, at)
            begun, end = _value(data, key & 7, begun)
            if end > len(data):
                break
            if key == _RAW:
                raws.append(view[begun:end])
            else:
                kept.append(view[at:end])
            at = end
    except (IndexError, ValueError):
        pass
    return data, []


def _value(data: bytes, wire_type: int, at: int) -> tuple[int, int]:
    """Where the value behind the key that ends at `at` begins, and where it ends."""
    if wire_type == _SIZED:
        size, begun = _varint(data, at)
        return begun, begun + size
    if wire_type == _VARINT:
        return at, _varint(data, at)[1]
    if wire_type in (_FIXED64, _FIXED32):
        return at, at + (8 if wire_type == _FIXED64 else 4)
    raise ValueError(wire_type)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = 0
    for place in range(_VARINT_BYTES):
        byte = data[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError("a number without an end")
