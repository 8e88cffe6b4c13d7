"""Copy a module to work on, and run it without leaving a trace in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Run(NamedTuple):
    """What one forward pass gave, the operators it ran, and the paths whose forward it called."""

    outputs: Any
    operators: int
    called: set[str]


def run(module: nn.Module, inputs: tuple[Any, ...]) -> Run:
    """Run a copy that shares the parameters: what forward stores or caches goes with the copy."""
    copied = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    called: set[str] = set()
    for path, child in copied.named_modules():
        vars(child)["forward"] = _noting(child.forward, path, called)
    with torch.no_grad(), _one_thread(), _OperatorCount() as count:
        outputs = copied(*inputs)
    return Run(outputs, count.operators, called)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Depthwise convolutions in float64 are many small steps: threads gain little on them.

    On a busy machine, or one with fewer cores than it shows, threads that wait for each other made
    seconds into minutes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors in a module's outputs, whatever structure they come in, in order."""
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def evaluation_copy(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of `module` on the CPU in evaluation mode, its floats as `dtype`."""
    # Activations that a forward stored carry a graph and refuse to be copied: share their values.
    held = (leaf for part in module.modules() for leaf in pytree.tree_leaves(vars(part)))
    memo: dict[int, Any] = {
        id(leaf): leaf.detach()
        for leaf in held
        if isinstance(leaf, Tensor) and leaf.grad_fn is not None
    }
    return copy.deepcopy(module, memo).cpu().to(dtype).eval()


def float64_copy(module: nn.Module) -> nn.Module:
    """An evaluation copy of `module` in float64, with plain parameters only."""
    copied = evaluation_copy(module, torch.float64)
    for part in list(copied.modules()):
        if is_parametrized(part):
            _bake(part)
    return copied


def _bake(module: nn.Module) -> None:
    """What parametrizations (weight norm, spectral norm) compute becomes the parameter itself."""
    # not torch's remove_parametrizations, which also changes the class of the untouched module
    assert isinstance(module.parametrizations, nn.ModuleDict)
    values = {name: getattr(module, name).detach() for name in module.parametrizations}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _noting(forward: Any, path: str, called: set[str]) -> Any:
    def noting(*args: Any, **kwargs: Any) -> Any:
        called.add(path)
        return forward(*args, **kwargs)

    return noting


class _OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        return func(*args, **(kwargs or {}))
