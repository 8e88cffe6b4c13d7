"""Copy a module to work on, and run it without leaving a trace in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_LARGE = 3 * 512 * 512  # values of an input


class Run(NamedTuple):
    """What one forward pass gave, the operators it ran, and the paths whose forward it called."""

    outputs: Any
    operators: int
    called: set[str]


def run(module: nn.Module, inputs: tuple[Any, ...]) -> Run:
    """Run a copy that shares the parameters: what forward stores or caches goes with the copy."""
    copied = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    inputs = pytree.tree_map_only(Tensor, Tensor.clone, inputs)  # forward may work in place
    called: set[str] = set()
    for path, child in copied.named_modules():
        vars(child)["forward"] = _noting(child.forward, path, called)
    with torch.no_grad(), _few_threads(inputs), _in_float64(), _OperatorCount() as count:
        outputs = copied(*inputs)
    return Run(outputs, count.operators, called)


@contextmanager
def _few_threads(inputs: tuple[Any, ...]) -> Iterator[None]:
    """One, unless an input is large: then attention's products are most of it.

    Depthwise convolutions in float64 are many small steps: threads gain little on them. On a busy
    machine, or one with fewer cores than it shows, threads that wait for each other made seconds
    into minutes.
    """
    threads = torch.get_num_threads()
    if all(x.numel() < _LARGE for x in tensors(inputs)):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _in_float64() -> Iterator[None]:
    """What forward makes FP32 by name (`x.float()`, `dtype=torch.float32`) becomes float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Doubled():
            yield
    finally:
        torch.set_default_dtype(default)


class _Doubled(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args, kwargs = pytree.tree_map_only(torch.dtype, _doubled, (args, kwargs or {}))
        return func(*args, **kwargs)


def _doubled(dtype: torch.dtype) -> torch.dtype:
    return {torch.float32: torch.float64, torch.complex64: torch.complex128}.get(dtype, dtype)


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
    return cast(copy.deepcopy(module, memo).cpu(), dtype).eval()


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`module` itself with its floats as `dtype`, its complex numbers as wide."""

    # Module.to would make real numbers of complex ones.
    def typed(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    module._apply(typed)  # type: ignore[no-untyped-call]
    return module


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
