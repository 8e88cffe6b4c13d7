"""Names for what a network returns: a tensor, or tuples, lists and dicts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sam_deploy.errors import InputError
from sam_deploy.runner import Array, Arrays


def output_names(outputs: Any) -> list[str]:
    """A name for each tensor: "output" for one, keys of dicts, positions in tuples and lists.

    {"logits": x, "maps": (y, z)} gives logits, maps_0, maps_1; (x, y) gives output_0, output_1.

    Raises:
        InputError: something in it is no tensor, there is none, or two would be called alike.
    """
    names: list[str] = []
    for path, leaf in pytree.tree_flatten_with_path(outputs)[0]:
        if leaf is None:
            continue
        if not isinstance(leaf, Tensor):
            raise InputError(
                f"the network returns a {type(leaf).__name__} at {pytree.keystr(path) or 'the top'}"
                "; expected tensors. Return what is no tensor in another way, or wrap the network."
            )
        parts = [_part(key) for key in path]
        if not parts or parts[0].isdigit():
            parts.insert(0, "output")
        names.append("_".join(parts))
    if not names:
        raise InputError("the network returns no tensor; expected one or more.")
    if len(set(names)) != len(names):
        raise InputError(
            f"two outputs would be called alike: {', '.join(names)}. Give output_names."
        )
    return names


def _part(key: Any) -> str:
    """A key of a dict, a place in a sequence, or a field of a named tuple or dataclass."""
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))


def named_outputs(outputs: Any, names: Sequence[str]) -> Arrays:
    """The tensors in `outputs`, in order, as arrays by `names`.

    Raises:
        InputError: another number of tensors than of names.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(outputs) if leaf is not None]
    if len(tensors) != len(names):
        raise InputError(
            f"the network returns {len(tensors)} tensors; got {len(names)} output names "
            f"({', '.join(names)}). Give a name for each, in order."
        )
    return {name: _array(name, tensor) for name, tensor in zip(names, tensors, strict=True)}


def _array(name: str, tensor: Tensor) -> Array:
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
        raise InputError(
            f"the output {name} is {tensor.dtype}, {tensor.layout}; expected a plain tensor of "
            "floats, integers or booleans. Convert it in forward."
        )
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
