"""Which model a state dict is of, and that model with the weights in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sam_deploy import architecture as known
from sam_deploy.architecture import STAGES, VARIANTS, Architecture
from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.models.checkpoint import listed, read_checkpoint
from sam_deploy.models.sam import SAM
from sam_deploy.models.smt import SMT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEAD = "head.weight"
_COUNTER = "num_batches_tracked"  # of BatchNorm; inference does not read it


class Fit(NamedTuple):
    """What a state dict is of. `name` is None for an architecture that is no named variant.

    `architecture` is None for the SAM module on its own, `num_classes` where there is no head.
    """

    name: str | None
    architecture: Architecture | None
    num_classes: int | None
    layer_scale: bool


def infer(state: Mapping[str, Tensor]) -> Fit | None:
    """The named model whose sizes the shapes in `state` show, or None when no one's are.

    A fit is of the sizes only: single tensors may still be missing. Head counts of attention
    leave no trace in the shapes and are those of the variant.
    """
    if "local_conv_1.weight" in state and "proj0.weight" in state:
        return Fit(known.SAM, None, None, layer_scale=False)
    try:
        sizes = _sizes(state)
    except (KeyError, IndexError, ZeroDivisionError):
        return None
    for name, variant in VARIANTS.items():
        if all(getattr(variant, field) == value for field, value in sizes.items()):
            return _fit(state, name, variant)
    return None


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
    does. The class count and layer scale are the checkpoint's; `num_classes` only asserts.
    With `features` the model returns its four feature maps, and a `head.*` in the file is
    dropped. `ema` takes the averaged weights.

    Returns:
        The model (SMT or SAM, float32, on the CPU) and what it was found to be.

    Raises:
        CheckpointError: the file cannot be read (see `read_checkpoint`) or its weights are not
            exactly those of the model; the message lists the first five and what would fit.
        InputError: an unknown name, or options that contradict each other.
    """
    if name is not None and architecture is not None:
        raise InputError(f"got the model {name!r} and an architecture; expected one of them")
    if name not in (None, known.SAM):
        architecture = known.variant(str(name))
    state = read_checkpoint(path, ema=ema)
    found = infer(state)
    if name == known.SAM:
        fit = Fit(known.SAM, None, None, layer_scale=False)
    elif architecture is not None:
        fit = _fit(state, _name(architecture), architecture)
    elif found is not None:
        fit = found
    else:
        raise CheckpointError(
            f"{path} is of no known model: its {len(state)} tensors are {listed(state)}; expected "
            f"the sizes of {', '.join(known.list_models())}. Describe another in a recipe"
        )
    if fit.architecture is None:
        if features or num_classes is not None:
            raise InputError("the SAM module has no classes or feature maps; leave them out")
    else:
        fit = _check_head(path, fit, num_classes, features)
        if features:
            state = {key: v for key, v in state.items() if not key.startswith("head.")}
    return _load(path, state, fit, found, features), fit


def _fit(state: Mapping[str, Tensor], name: str | None, architecture: Architecture) -> Fit:
    classes = state[_HEAD].shape[0] if _HEAD in state and state[_HEAD].ndim else None
    layer_scale = any(key.endswith(".gamma_1") for key in state)
    return Fit(name, architecture, classes, layer_scale)


def _name(architecture: Architecture) -> str | None:
    return next((name for name, each in VARIANTS.items() if each == architecture), None)


def _sizes(state: Mapping[str, Tensor]) -> dict[str, object]:
    """The fields of `Architecture` that leave a trace in the shapes."""
    dims = [state[f"norm{stage}.weight"].shape[0] for stage in range(1, STAGES + 1)]
    hidden = [state[f"block{stage}.0.mlp.fc1.weight"].shape[0] for stage in range(1, STAGES + 1)]
    blocks = {tuple(key.split(".")[:2]) for key in state if key.startswith("block")}
    return {
        "dims": tuple(dims),
        "depths": tuple(sum(b[0] == f"block{s}" for b in blocks) for s in range(1, STAGES + 1)),
        "mlp_ratios": tuple(wide / dim for wide, dim in zip(hidden, dims, strict=True)),
        "sam_heads": tuple(_heads(state, f"block{stage}.0.attn.") for stage in range(1, STAGES)),
        "stem_kernel": state["patch_embed1.conv.0.weight"].shape[-1],
        "expand_ratio": state["block1.0.attn.proj0.weight"].shape[0] / dims[0],
    }


def _heads(state: Mapping[str, Tensor], prefix: str) -> int:
    convolution = f"{prefix}local_conv_"
    return sum(key.startswith(convolution) and key.endswith(".weight") for key in state)
