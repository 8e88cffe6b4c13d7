"""What a pickle may build beside plain values: tensors over stored bytes, and ordered dicts."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sam_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,  # of younger types, which the tensor names
}
_MOST_DIMS = 64  # torch's own limit


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions, with what builds its objects for the few honoured ones."""

    name: str
    build: Callable[..., object] | None = None


class Storage(NamedTuple):
    """Bytes of the file that tensors are views of, and their type if no tensor names another."""

    data: torch.UntypedStorage
    dtype: torch.dtype


class Placeholder(dict[object, object]):
    """Stands where an object of a foreign class would be; keeps its items, drops all else."""

    __slots__ = ("is_module", "name")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.is_module = False  # whether its state was that of a torch.nn.Module

    def __hash__(self) -> int:  # type: ignore[override]  # it may be a key
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, item: object) -> None:
        """Drop a list item: APPEND and APPENDS come here."""


def plain_key(key: object) -> object:
    """`key` where weights have such keys, else a placeholder.

    To hash a nested tuple takes 2^depth steps, and many large integers share one hash.
    """
    if isinstance(key, str) or (type(key) is int and abs(key) < 2**32):
        return key
    return key if isinstance(key, Placeholder) else Placeholder(type(key).__name__)


def _view(storage: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    if not (
        isinstance(storage, Storage)
        and isinstance(dtype, torch.dtype)
        and isinstance(size, tuple | list)
        and isinstance(stride, tuple | list)
        and len(size) == len(stride) <= _MOST_DIMS
        and all(type(n) is int and 0 <= n < 2**63 for n in (offset, *size, *stride))
    ):
        raise CheckpointError("holds a tensor that is none: its storage, sizes or strides are odd")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    fits = last < storage.data.nbytes() // dtype.itemsize or 0 in size  # `set_` would grow it
    if not fits or math.prod(size) >= 2**63:
        raise CheckpointError(f"holds a tensor of shape {tuple(size)} with too little data for it")
    return torch.empty(0, dtype=dtype).set_(storage.data, offset, tuple(size), tuple(stride))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    return _view(storage, getattr(storage, "dtype", None), offset, size, stride)


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    return _view(storage, rest[2], offset, size, stride)  # after requires_grad and hooks


def _first(data: object, *_: object) -> object:
    return data


def _ordered(items: Any = ()) -> OrderedDict[object, object]:
    return OrderedDict((plain_key(key), value) for key, value in _listlike(items))


def _size(items: Any = ()) -> torch.Size:
    return torch.Size(_listlike(items))


def _listlike(items: Any) -> Any:
    if not isinstance(items, list | tuple):  # a tensor over one value may iterate for ever
        raise CheckpointError(f"builds a container from a {type(items).__name__}")
    return items


HONOURED: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": _size,
    "torch.device": torch.device,
    "collections.OrderedDict": _ordered,
}
