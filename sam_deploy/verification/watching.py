"""The reference, watched while it runs: what each of its modules gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sam_deploy.reference import Subject
from sam_deploy.runner import Array, Arrays


def run_watched(
    subject: Subject, inputs: Mapping[str, Array], see: Callable[[str, Array], None]
) -> Arrays:
    """The reference's outputs; `see` is called with every module's path and what it gives.

    Of several tensors that is the first of floats, and of several calls the first. The array is
    the network's own: it is only as it is while `see` looks at it.
    """
    seen: set[str] = set()

    def watch(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def noticed(module: nn.Module, args: Any, output: Any) -> None:
            if path in seen:
                return
            seen.add(path)
            leaves = pytree.tree_leaves(output)
            floats = (x for x in leaves if isinstance(x, Tensor) and x.is_floating_point())
            tensor = next(floats, None)
            if tensor is not None and tensor.numel():
                see(path, tensor.detach().float().numpy())

        return noticed

    parts = [(path, part) for path, part in subject.module.named_modules() if path]
    hooks = [
        part.register_forward_hook(watch(path))
        for path, part in parts
        if "parametrizations" not in path.split(".")  # they give weights
    ]
    try:
        return subject.run(inputs)
    finally:
        for hook in hooks:
            hook.remove()
