"""An unpickler that runs nothing.

A pickle is a program: it names globals and calls them. Here a name never becomes the object it
stands for. `find_class` imports nothing and returns a `Global`, which is neither callable nor a
class and takes no attributes, so no opcode can do more with it than is written below:

* tensors are rebuilt by functions of this package, over bytes that `torch_file` hands in;
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
from typing import IO, TYPE_CHECKING, Any, ClassVar, NoReturn

import torch

from sam_deploy.errors import CheckpointError
from sam_deploy.models._wording import shown
from sam_deploy.models.bounded_pickle import BoundedUnpickler
from sam_deploy.models.pickled_values import HONOURED, Global, Placeholder

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
        *(f"builtins.{name}" for name in ("set", "frozenset", "bytes", "bytearray")),
        *(f"builtins.{name}" for name in ("complex", "range", "slice")),
        *("types.SimpleNamespace", "uuid.UUID", "decimal.Decimal", "fractions.Fraction"),
    }
)
_MODULE_STATE = {"_parameters", "_buffers", "_modules"}  # what every torch.nn.Module pickles


def refuse_call(name: str) -> NoReturn:
    """Say that the pickle calls `name`, and that it was not called.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(
        f"calls {shown(name)}, which no stored weights need; nothing was run. If you trust the "
        "file, load it where it was made and save the weights alone: "
        "torch.save(model.state_dict(), ...)"
    )


class Unpickler(BoundedUnpickler):
    """The bounded parser with every acting opcode replaced.

    Raises:
        CheckpointError: the pickle calls something; the message names it.
    """

    def __init__(self, file: IO[bytes], storage: Callable[..., object] | None = None) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        """A `Global`, or a torch dtype; imports nothing, whatever the name says."""
        if self.proto < 3:  # such pickles hold Python 2's names
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        full = f"{module}.{name}"
        return Global(full, HONOURED.get(full))

    def get_extension(self, code: int) -> NoReturn:
        """EXT opcodes reach for real objects in a table of the process."""
        refuse_call(f"extension {code} of copyreg")

    def _call(self, func: object, args: Any) -> object:
        if not isinstance(func, Global) or not isinstance(args, tuple):
            refuse_call(f"a {type(func).__name__}")
        if func.name == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes
            inner, _, inner_args, _ = args
            if not isinstance(inner, Global) or inner.build is None:
                refuse_call(getattr(inner, "name", "something"))
            return self._call(inner, inner_args)
        if func.build is not None:
            return func.build(*args)
        if func.name not in _DATA:
            refuse_call(func.name)
        return Placeholder(func.name)

    def _new(self, cls: object, args: Any) -> object:
        if not isinstance(cls, Global):
            refuse_call(f"a {type(cls).__name__}")
        return Placeholder(cls.name) if cls.build is None else self._call(cls, args)

    def _instantiate(self, klass: object, args: Any) -> None:  # INST and OBJ
        self.stack.append(self._call(klass, tuple(args)))

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
        state, target = self.stack.pop(), self.stack[-1]  # OrderedDict's is torch's _metadata
        if not isinstance(target, dict):
            refuse_call(f"__setstate__ of a {type(target).__name__}")
        if isinstance(target, Placeholder) and isinstance(state, dict):
            target.is_module = state.keys() >= _MODULE_STATE

    def _load_binpersid(self) -> None:
        match self.stack.pop():
            case ("storage", Global() as kind, str() as key, *rest) if self._storage is not None:
                self.stack.append(self._storage(kind, key, *rest))
            # a class, with its source, which torch would compare with the source it finds here
            case ("module", Global() as cls, *_):
                self.stack.append(cls)
            case _:
                refuse_call("for a persistent object that is not a storage")

    def _load_persid(self) -> NoReturn:
        refuse_call("for a persistent object of protocol 0")

    dispatch: ClassVar[dict[int, Any]] = {
        **BoundedUnpickler.dispatch,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.BUILD[0]: _load_build,
        pickle.BINPERSID[0]: _load_binpersid,
        pickle.PERSID[0]: _load_persid,
    }


def load(file: IO[bytes], storage: Callable[..., object] | None = None) -> object:
    """The next object of an open pickle.

    `storage` is called with what a persistent id says after "storage" and returns a `Storage`.

    Raises:
        CheckpointError: see `Unpickler`; without a pickle in `file`, nearly anything.
    """
    return Unpickler(file, storage).load()
