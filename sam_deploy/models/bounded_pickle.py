"""A parser of pickles that no pickle can make take long or much: only then it may be hostile.

The parser of the standard library trusts the sizes and keys that it reads. The Python
implementation is used because in the C one opcodes cannot be replaced.
"""

from __future__ import annotations

import pickle
import struct
from typing import IO, TYPE_CHECKING, Any, ClassVar, NoReturn

from sam_deploy.errors import CheckpointError
from sam_deploy.models.pickled_values import Placeholder, plain_key

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 2**24  # of one pickle, tensors apart; an opcode of one byte may take 100 of memory


def refuse_size() -> NoReturn:
    """Say that a pickle takes more than `MAX_BYTES`.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(
        f"holds a pickle of more than {MAX_BYTES >> 20} MiB beside its tensors, or one that claims "
        "so; expected names and settings there. Save the weights alone: "
        "torch.save(model.state_dict(), ...)"
    )


class _Bounded:
    """As much of a file as a pickle may take."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, MAX_BYTES

    def read(self, size: int) -> bytes:
        if size > self._left:
            refuse_size()
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


class BoundedUnpickler(pickle._Unpickler):
    """Reads at most `MAX_BYTES`, and hashes no key that `plain_key` would not."""

    stack: list[Any]
    proto: int
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: IO[bytes]) -> None:
        # Python 2's strings may be any bytes; the names in a checkpoint are ASCII
        super().__init__(_Bounded(file), encoding="latin-1")

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):  # a tensor takes items too
            raise pickle.UnpicklingError(f"items of a {type(target).__name__}")
        target.update(zip(map(plain_key, items[::2]), items[1::2], strict=True))

    def _load_empty_set(self) -> None:
        self.stack.append(Placeholder("builtins.set"))

    def _load_additems(self) -> None:
        self.pop_mark()
        if not isinstance(self.stack[-1], Placeholder):  # a tensor has `add`
            raise pickle.UnpicklingError(f"items of a {type(self.stack[-1]).__name__}")

    def _load_frozenset(self) -> None:
        self.pop_mark()
        self.stack.append(Placeholder("builtins.frozenset"))

    def _load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.stack.append(self.read(size))  # not into an array made first, of any size

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.DICT[0]: _load_dict,
        pickle.EMPTY_SET[0]: _load_empty_set,
        pickle.ADDITEMS[0]: _load_additems,
        pickle.FROZENSET[0]: _load_frozenset,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
    }
