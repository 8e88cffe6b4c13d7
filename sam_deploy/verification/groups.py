"""Which modules one would keep in higher precision together: an attention, an MLP, a head."""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

_MOST_LAYERS = 16  # a module that holds more is no part of a network, but most of it


def groups_of(network: nn.Module) -> dict[str, str]:
    """The group of each module in `network`, both by path.

    A group is a module that holds layers itself and below holds at most one each, such as
    "block1.0.attn"; what is in none, such as a norm between two, is a group of its own.
    """
    layers = [path for path, part in network.named_modules() if path and _is_layer(part)]
    held = Counter(path.rpartition(".")[0] for path in layers)
    groups = {
        path
        for path, count in held.items()
        if path
        and count <= _MOST_LAYERS
        and not any(n > 1 and other.startswith(path + ".") for other, n in held.items())
    }
    found = {}
    for path, _ in network.named_modules():
        parts = path.split(".")
        outer = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        found[path] = next((above for above in outer if above in groups), path)
    return found


def _is_layer(module: nn.Module) -> bool:
    """Whether it has weights to multiply by."""
    own = module.parameters(recurse=False)
    return is_parametrized(module) or any(parameter.ndim > 1 for parameter in own)
