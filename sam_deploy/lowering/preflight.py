"""What an exporter would trip over, said before it does, with the Python file and line."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sam_deploy.errors import InputError
from sam_deploy.lowering.any_batch import find_fixed_batch
from sam_deploy.lowering.traps import BRANCH, COUNT, READ, Trap, Traps
from sam_deploy.reference.user_code import line_of_forward


def check_traps(
    module: nn.Module, example_inputs: tuple[Any, ...], *, batch: int | None
) -> list[str]:
    """What is noteworthy in `module`, each with its line; `batch` None wants any batch size.

    Raises:
        InputError: listing, with their lines, the places that no static graph can hold.
    """
    traps = find_traps(module, example_inputs, batch=batch)
    fatal = [str(trap) for trap in traps if trap.fatal]
    if fatal:
        listed = "\n  ".join(fatal)
        raise InputError(f"the network cannot become a static graph:\n  {listed}")
    return [str(trap) for trap in traps]


def find_traps(
    module: nn.Module, example_inputs: tuple[Any, ...], *, batch: int | None
) -> list[Trap]:
    """The traps in `module`, one a line of code, in the order they were met."""
    traps = Traps(__file__)
    copied = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    _watch(copied, example_inputs, traps)
    if batch is None and not traps.fatal:
        find_fixed_batch(copied, example_inputs, traps)
    return list(traps.found.values())


def _watch(module: nn.Module, inputs: tuple[Any, ...], traps: Traps) -> None:
    before = {part: _tensor_attributes(part) for part in module.modules()}
    stored: set[tuple[nn.Module, str]] = set()
    given = pytree.tree_map_only(Tensor, Tensor.clone, inputs)  # forward may work in place
    telling = _telling_of_attributes(before, traps, stored)
    with torch.no_grad(), telling, _PythonReads(traps), _GraphReads(traps):
        module(*given)
    for path, part in module.named_modules():  # what was appended to a list, say
        for name in _tensor_attributes(part) - before.get(part, set()):
            if (part, name) not in stored:
                where = f"{path}.{name}" if path else name
                traps.add(_kept(where), line=line_of_forward(part))


def _tensor_attributes(module: nn.Module) -> set[str]:
    """The names of plain attributes that hold tensors, in whatever structure."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
    }


@contextmanager
def _telling_of_attributes(
    parts: Container[nn.Module], traps: Traps, stored: set[tuple[nn.Module, str]]
) -> Iterator[None]:
    """Tell when forward stores a tensor on one of `parts`."""
    # Not by a subclass of each: forward may ask for its parts' classes.
    plain = nn.Module.__setattr__

    def setting(self: nn.Module, name: str, value: Any) -> None:
        if self in parts and any(isinstance(x, Tensor) for x in pytree.tree_leaves(value)):
            stored.add((self, name))
            traps.add(_kept(f"{type(self).__name__}.{name}"))
        plain(self, name, value)

    nn.Module.__setattr__ = setting  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__setattr__ = plain  # type: ignore[method-assign]


def _kept(name: str) -> str:
    return (
        f"forward stores a tensor in {name}: a graph keeps nothing from one call to the next. "
        "Return it if you need it"
    )


class _PythonReads(TorchFunctionMode):
    """Sees the calls by which Python gets at values."""

    def __init__(self, traps: Traps) -> None:
        super().__init__()
        self._traps = traps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__bool__":
            self._traps.add(BRANCH, fatal=True)
        elif name in ("tolist", "numpy", "__array__"):
            self._traps.add(READ)
        return func(*args, **(kwargs or {}))


def _by_position(func: Any, args: Any) -> bool:
    """Whether this is x[indices]: the tag of index is for masks."""
    masks = (torch.bool, torch.uint8)
    tensors = [leaf for leaf in pytree.tree_leaves(args[1:]) if isinstance(leaf, Tensor)]
    return func is torch.ops.aten.index.Tensor and all(t.dtype not in masks for t in tensors)


class _GraphReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operators whose result, or its size, is no function of shapes."""

    def __init__(self, traps: Traps) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._traps = traps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags:
            self._traps.add(READ)
        elif torch.Tag.dynamic_output_shape in func.tags and not _by_position(func, args):
            self._traps.add(COUNT)
        return func(*args, **(kwargs or {}))
