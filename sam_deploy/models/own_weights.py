"""A checkpoint's weights in a module of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import is_lazy

from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.models.checkpoint import plain, read_weights, refuse_not_finite, unwrapped
from sam_deploy.models.misfit import COUNTER, misfit

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_WRAPPERS = ("module.", "_orig_mod.", "model.")


def load_weights(module: nn.Module, path: Path, *, ema: bool = False) -> None:
    """Put the weights in the file at `path` into `module`; nothing in the file is run.

    Their names must be the module's own, or become so without what a wrapper put before all of
    them (`module.`, `_orig_mod.`, `model.`). Floats take the type of the module's tensors; only
    `num_batches_tracked` may be missing. `ema` takes the averaged copy.

    Raises:
        CheckpointError: the file cannot be read (see `read_weights`), its tensors are not exactly
            the module's, or they are not finite. The module is then as it was.
        InputError: the module has tensors without memory, which no weights can be put into.
    """
    expected = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, torch.Tensor)  # `get_extra_state` may return anything
    }
    if any(is_lazy(tensor) or tensor.is_meta for tensor in expected.values()):
        raise InputError(
            "the module has lazy tensors, or some on the meta device; expected one with memory for "
            "its weights. Run it once, or make it on the CPU"
        )
    forms = unwrapped(read_weights(path, ema=ema), _WRAPPERS)
    weights = max(forms, key=lambda form: len(form.keys() & expected.keys()))
    differences = misfit(expected, weights)
    if differences:
        raise CheckpointError(
            f"{path} does not fit {type(module).__name__}, which has {len(expected)} tensors: "
            f"{differences}. Make the module with the numbers that the checkpoint was trained "
            "with, or save the checkpoint from this module: torch.save(model.state_dict(), ...)"
        )
    state = {
        name: plain(path, name, tensor, expected[name].dtype) for name, tensor in weights.items()
    }
    # a module that holds infinity, as masks do, may be given it
    judged = {name: tensor for name, tensor in state.items() if expected[name].isfinite().all()}
    refuse_not_finite(path, judged)
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(COUNTER)}
    module.load_state_dict({**counters, **state}, strict=False)  # the extra state stays
