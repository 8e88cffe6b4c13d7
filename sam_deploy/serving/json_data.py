"""Tensors as lists in JSON, flat or nested as the protocol allows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from sam_deploy.runner import Array
from sam_deploy.serving.datatypes import BYTES, bytes_array, dtype_of, elements_of
from sam_deploy.serving.failures import BadRequest

_FLAT: dict[str, msgspec.json.Decoder[Any]] = {
    "b": msgspec.json.Decoder(list[bool]),
    "i": msgspec.json.Decoder(list[int]),
    "f": msgspec.json.Decoder(list[float]),
    "O": msgspec.json.Decoder(list[str]),
}
_FLAT["u"] = _FLAT["i"]
_ANY = msgspec.json.Decoder()
_KINDS: dict[str, type | tuple[type, ...]] = {
    "b": bool,
    "i": int,
    "u": int,
    "f": (int, float),
    "O": str,
}


def array_of_data(data: msgspec.Raw, datatype: str, shape: Sequence[int], what: str) -> Array:
    """The tensor whose elements `data` lists.

    Raises:
        BadRequest: they are not as many as `shape` says, not of the datatype, or beyond its range.
    """
    dtype = dtype_of(datatype)
    count = elements_of(shape, what)
    elements = _elements(data, dtype.kind, datatype, what)
    if len(elements) != count:
        raise BadRequest(f"{what} has {len(elements)} elements; {list(shape)} takes {count}")
    if datatype == BYTES:
        return bytes_array([text.encode("utf-8", "surrogatepass") for text in elements], shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(elements, dtype)
    except (OverflowError, ValueError, TypeError):
        raise BadRequest(f"{what} has elements beyond the range of {datatype}") from None
    if dtype.kind == "f" and not np.isfinite(array).all():  # JSON has no NaN: it overflowed
        raise BadRequest(f"{what} has elements beyond the range of {datatype}")
    return array.reshape(shape)


def data_of_array(name: str, array: Array) -> list[Any]:
    """The elements of a tensor, flat.

    Raises:
        BadRequest: NaN or infinity, which JSON has no form for.
    """
    if array.dtype == object:
        return [element.decode("utf-8", "replace") for element in array.flat]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(
            f"output {name} has NaN or infinity, which JSON has no form for; ask for binary data"
        )
    listed: list[Any] = array.ravel().tolist()
    return listed


def _elements(data: msgspec.Raw, kind: str, datatype: str, what: str) -> list[Any]:
    try:
        found: list[Any] = _FLAT[kind].decode(data)
        return found
    except msgspec.ValidationError:
        pass  # nested, or wrong
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the data of {what} cannot be read: {error}") from None
    try:
        elements = list(_flat(_ANY.decode(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the data of {what} cannot be read: {error}") from None
    right = _KINDS[kind]
    for element in elements:
        if not isinstance(element, right) or (isinstance(element, bool) and kind != "b"):
            raise BadRequest(
                f"the data of {what} has {type(element).__name__} among its elements; "
                f"expected {datatype}"
            )
    return elements


def _flat(data: Any) -> Iterable[Any]:
    if not isinstance(data, list):
        yield data
        return
    for element in data:
        yield from _flat(element)
