"""How a state dict differs from a module's own, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam_deploy.models._wording import listed, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    State = Mapping[str, Tensor]

COUNTER = "num_batches_tracked"  # of BatchNorm; inference never reads it, so it may be missing


def misfit(expected: State, state: State) -> str:
    """What of `expected` is missing in `state`, unexpected or of another shape; '' if nothing.

    Floats of any width are alike.
    """
    missing = [name for name in expected if name not in state and not name.endswith(COUNTER)]
    unexpected = [name for name in state if name not in expected]
    other = [
        f"{shown(name)} is {_kind(state[name])} instead of {_kind(tensor)}"
        for name, tensor in expected.items()
        if name in state and not alike(state[name], tensor)
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    return "; ".join(
        f"{len(names)} {how} ({listed(names)})" for how, names in wrong.items() if names
    )


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are of one shape, and both floats or of one type."""
    return _kind(one) == _kind(other)


def _kind(tensor: Tensor) -> str:
    integer = "" if tensor.is_floating_point() else f" {tensor.dtype}".replace("torch.", "")
    return f"{tuple(tensor.shape)}{integer}"
