"""An unpickler that runs nothing, for `torch.load(..., weights_only=False, pickle_module=...)`.

A pickle is a program: it names globals and calls them. Here a name never becomes the object it
stands for. `find_class` imports nothing and returns a `Global`, which is neither callable nor a
class and takes no attributes, so no opcode can do more with it than is written below:

* tensors are rebuilt by functions of this file, from storages that torch hands in;
* an object of any other class (NEWOBJ: yacs's CfgNode, argparse's Namespace) becomes an empty
  `Placeholder`, whose state is dropped;
* a call (REDUCE, INST, OBJ) of a data type in `_DATA` becomes a `Placeholder` too, and a call of
  anything else is refused by name.

torch's `weights_only` unpickler refuses any file that as much as names another class, and files
of the official training script all do.
"""

from __future__ import annotations

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor

from sam_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_DATA = frozenset(
    {
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        *("numpy.dtype", "numpy.ndarray", "_codecs.encode", "copyreg._reconstructor"),
        *(f"{module}.{path}" for module in ("pathlib", "pathlib._local") for path in _PATHS),
        *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
        *(f"collections.{name}" for name in ("defaultdict", "Counter", "deque")),
        *(f"builtins.{name}" for name in ("bytes", "bytearray", "complex", "range", "slice")),
        *("types.SimpleNamespace", "uuid.UUID", "decimal.Decimal", "fractions.Fraction"),
    }
)


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions, with what builds its objects for the few honoured ones."""

    name: str
    build: Callable[..., object] | None = None


class Placeholder(dict[object, object]):
    """Stands where an object of a foreign class would be; keeps its items, drops all else."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __hash__(self) -> int:  # type: ignore[override]  # it may be a key or in a set
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, item: object) -> None:
        """Drop a list item: APPEND and APPENDS come here."""

    def add(self, item: object) -> None:
        """Drop a set item: ADDITEMS comes here."""


def _view(storage: Any, dtype: torch.dtype, offset: int, size: Any, stride: Any) -> Tensor:
    data = storage._untyped_storage
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= data.nbytes() // dtype.itemsize:  # `set_` would grow the storage
        raise CheckpointError(f"holds a tensor of shape {tuple(size)} with too little data for it")
    return torch.empty(0, dtype=dtype).set_(data, offset, size, stride)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    return _view(storage, storage.dtype, offset, size, stride)


def _tensor_v3(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    return _view(storage, rest[2], offset, size, stride)  # after requires_grad and hooks


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _tensor_with_attributes(func: Global, _type: object, args: Any, _state: object) -> object:
    if func.build is None:
        _refuse_call(func.name)
    return func.build(*args)


_HONOURED: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
}


def _refuse_call(name: str) -> NoReturn:
    raise CheckpointError(
        f"calls {name}, which no stored weights need; nothing was run. If you trust the file, "
        "load it where it was made and save the weights alone: torch.save(model.state_dict(), ...)"
    )


class Unpickler(pickle._Unpickler):
    """The parser of the standard library with every acting opcode replaced.

    The Python implementation is used because in the C one opcodes cannot be replaced.

    Raises:
        CheckpointError: the pickle calls something; the message names it.
    """

    stack: list[Any]
    proto: int

    def find_class(self, module: str, name: str) -> object:
        """A `Global`, or a torch dtype; imports nothing, whatever the name says."""
        if self.proto < 3:  # such pickles hold Python 2's names
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.UntypedStorage  # torch compares it by identity
        full = f"{module}.{name}"
        return Global(full, _HONOURED.get(full))

    def get_extension(self, code: int) -> NoReturn:
        """EXT opcodes reach for real objects in a table of the process."""
        _refuse_call(f"extension {code} of copyreg")

    def _call(self, func: object, args: Any) -> object:
        if not isinstance(func, Global):
            _refuse_call(f"a {type(func).__name__}")
        if func.build is not None:
            return func.build(*args)
        if func.name not in _DATA:
            _refuse_call(func.name)
        return Placeholder(func.name)

    def _new(self, cls: object, args: Any) -> object:
        if not isinstance(cls, Global):
            _refuse_call(f"a {type(cls).__name__}")
        return Placeholder(cls.name) if cls.build is None else cls.build(*args)

    def _instantiate(self, klass: object, args: Any) -> None:  # INST and OBJ
        self.stack.append(self._call(klass, args))

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._new(self.stack[-1], args)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments: only placeholders come with any
        self._load_newobj()

    def _load_build(self) -> None:
        self.stack.pop()  # the state; OrderedDict's holds torch's _metadata
        if not isinstance(self.stack[-1], Placeholder | OrderedDict):
            _refuse_call(f"__setstate__ of a {type(self.stack[-1]).__name__}")

    def _load_binpersid(self) -> None:
        pid = self.stack.pop()
        # torch also knows 'module' here, for which it may read source files and write patches
        if not isinstance(pid, tuple) or not pid or pid[0] not in ("storage", b"storage"):
            _refuse_call("for a persistent object that is not a storage")
        self.stack.append(self.persistent_load(pid))

    def _load_persid(self) -> NoReturn:
        _refuse_call("for a persistent object of protocol 0")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.BUILD[0]: _load_build,
        pickle.BINPERSID[0]: _load_binpersid,
        pickle.PERSID[0]: _load_persid,
    }


def load(file: IO[bytes], **options: Any) -> object:
    """One object of an open pickle; torch reads the parts of old-format files with it."""
    return Unpickler(file, **options).load()
