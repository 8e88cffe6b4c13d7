"""The protocol's datatypes, and tensors as it has them in bytes.

Open Inference Protocol, "Tensor Data Types" and the binary tensor extension: little-endian, row by
row; an element of BYTES is its length in 4 bytes and then itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_deploy.runner import Array
from sam_deploy.serving.failures import BadRequest

BYTES = "BYTES"
_NUMPY = {
    "BOOL": "bool",
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_NAMES = {np.dtype(name): datatype for datatype, name in _NUMPY.items()}
_LENGTH = struct.Struct("<I")
_MOST_DIMS = 32  # numpy of before 2 had no more


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy dtype of a datatype; BYTES are objects.

    Raises:
        BadRequest: there is no such datatype, or none in numpy (BF16).
    """
    if datatype == BYTES:
        return np.dtype(object)
    if datatype not in _NUMPY:
        raise BadRequest(
            f"unknown datatype {datatype[:40]!r}; known are {', '.join([*_NUMPY, BYTES])}"
        )
    return np.dtype(_NUMPY[datatype])


def datatype_of(dtype: npt.DTypeLike) -> str:
    """The datatype of a numpy dtype; objects are BYTES."""
    return _NAMES.get(np.dtype(dtype), BYTES)


def elements_of(shape: Sequence[int], what: str) -> int:
    """How many elements a tensor of `shape` has, at least one; `what` names it in errors.

    Raises:
        BadRequest: a size below 1, or more dims than arrays have.
    """
    if len(shape) > _MOST_DIMS:
        raise BadRequest(f"{what} has {len(shape)} dims; at most {_MOST_DIMS} are taken")
    if any(size < 1 for size in shape):
        raise BadRequest(f"{what} has shape {list(shape)}; each size must be at least 1")
    return math.prod(shape)


def array_of_raw(raw: memoryview, datatype: str, shape: Sequence[int], what: str) -> Array:
    """The tensor in `raw`; numbers are a read-only view of it.

    Raises:
        BadRequest: `raw` has another length than a tensor of this shape.
    """
    dtype = dtype_of(datatype)
    count = elements_of(shape, what)
    if datatype == BYTES:
        return _unpacked(raw, count, what).reshape(shape)
    expected = count * dtype.itemsize
    if len(raw) != expected:
        raise BadRequest(f"{what} has {len(raw)} bytes; {datatype} {list(shape)} takes {expected}")
    return np.frombuffer(raw, dtype).reshape(shape)


def raw_of_array(array: Array) -> bytes:
    """The bytes of a tensor, as `array_of_raw` reads them."""
    if array.dtype != object:
        return array.tobytes()
    parts = []
    for element in array.flat:
        parts += [_LENGTH.pack(len(element)), element]
    return b"".join(parts)


def bytes_array(elements: Sequence[bytes], shape: Sequence[int]) -> Array:
    """An array of objects: numpy would make fixed-size strings of them, and cut zeros off."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _unpacked(raw: memoryview, count: int, what: str) -> Array:
    if count * _LENGTH.size > len(raw):
        raise BadRequest(f"{what} has {len(raw)} bytes, too few for {count} elements of BYTES")
    elements = []
    place = 0
    for number in range(count):
        start = place + _LENGTH.size
        if start > len(raw):
            raise BadRequest(f"{what} ends before element {number} of {count}")
        (length,) = _LENGTH.unpack_from(raw, place)
        place = start + length
        if place > len(raw):
            raise BadRequest(f"{what} ends within element {number}, which has {length} bytes")
        elements.append(bytes(raw[start:place]))
    if place != len(raw):
        raise BadRequest(f"{what} has {len(raw) - place} bytes more than its {count} elements")
    return bytes_array(elements, [count])
