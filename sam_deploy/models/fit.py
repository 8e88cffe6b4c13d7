"""The model in a checkpoint, with every weight from the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sam_deploy import architecture as known
from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.models.checkpoint import read_checkpoint
from sam_deploy.models.misfit import COUNTER, misfit
from sam_deploy.models.nearest_model import explain_misfit
from sam_deploy.models.recognise import SAM_FIT, Fit, empty_model, fit_of, infer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from sam_deploy.architecture import Architecture
    from sam_deploy.models.recognise import State

__all__ = ["Fit", "explain_misfit", "infer", "load_model"]


def load_model(
    path: Path,
    *,
    name: str | None = None,
    architecture: Architecture | None = None,
    num_classes: int | None = None,
    features: bool = False,
    ema: bool = False,
) -> tuple[nn.Module, Fit]:
    """The model in the checkpoint at `path`, in evaluation mode, every weight from the file.

    The shapes say which variant it is, unless `name` (one of `list_models()`) or `architecture`
    does. The class count and layer scale are the checkpoint's; `num_classes` only asserts, but
    for 0, which takes a checkpoint without a head as a model of pooled features. With `features`
    the model returns its four feature maps, and a `head.*` in the file is dropped. `ema` takes
    the averaged weights.

    Returns:
        The model (SMT or SAM, float32, on the CPU) and what it was found to be.

    Raises:
        CheckpointError: the file cannot be read (see `read_checkpoint`) or its weights are not
            exactly those of the model; the message lists the first five and what would fit.
        InputError: an unknown name, or options that contradict each other.
    """
    if name is not None and architecture is not None:
        raise InputError(f"got the model {name!r} and an architecture; expected one of them")
    if name is not None and name != known.SAM:
        architecture = known.variant(name)
    state = read_checkpoint(path, ema=ema)
    shown = infer(state)
    fit = shown
    if architecture is not None:
        fit = fit_of(state, architecture)
    elif name is not None:
        fit = SAM_FIT
    if fit is None:
        raise CheckpointError(explain_misfit(path, state))
    fit = _headed(path, fit, num_classes, features)
    if features:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    model = empty_model(state, fit, features=features)
    _fill(path, model, state, fit, shown)
    return model, fit


def _headed(path: Path, fit: Fit, num_classes: int | None, features: bool) -> Fit:
    """`fit` with the head that the model will have, once it agrees with what was asked."""
    if fit.architecture is None:
        if features or num_classes is not None:
            raise InputError("the SAM module has no classes and no feature maps; leave them out")
        return fit
    if None not in (num_classes, fit.num_classes) and num_classes != fit.num_classes:
        raise CheckpointError(
            f"{path} has a head of {fit.num_classes} classes; expected the {num_classes} asked "
            "for. Leave the class count out to take the checkpoint's"
        )
    if features:
        return fit._replace(num_classes=None)
    if fit.num_classes is None and num_classes != 0:
        raise CheckpointError(
            f"{path} has no head.weight, so it is a backbone; expected a classifier. "
            "Use --features to take its feature maps"
        )
    return fit if fit.num_classes is not None else fit._replace(num_classes=0)


def _fill(path: Path, model: nn.Module, state: State, fit: Fit, shown: Fit | None) -> None:
    """Put `state` into `model`, every tensor of which is on the meta device.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape or kind.
    """
    expected = model.state_dict()
    differences = misfit(expected, state)
    if differences:
        if shown is not None and shown.name != fit.name:
            remedy = f"Its shapes are those of {shown.name}: use --model {shown.name}"
        else:
            remedy = "Use a checkpoint of this model, or describe the checkpoint's in a recipe"
        raise CheckpointError(
            f"{path} does not fit {fit.name or 'the architecture'}, which has {len(expected)} "
            f"tensors: {differences}. {remedy}"
        )
    counters = {
        key: torch.zeros_like(tensor, device="cpu")
        for key, tensor in expected.items()
        if key.endswith(COUNTER)
    }
    model.load_state_dict({**counters, **state}, assign=True)
