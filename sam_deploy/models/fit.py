"""Which model a state dict is of, and that model with the weights in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from sam_deploy import architecture as known
from sam_deploy.architecture import STAGES, VARIANTS, Architecture
from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.models.checkpoint import listed, read_checkpoint
from sam_deploy.models.sam import SAM
from sam_deploy.models.smt import SMT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    State = Mapping[str, Tensor]

_COUNTER = "num_batches_tracked"  # of BatchNorm; inference never reads it


class Fit(NamedTuple):
    """What a state dict is of.

    `name` is None for an architecture that is no named variant, `architecture` for the SAM module
    on its own, `num_classes` where there is no head.
    """

    name: str | None
    architecture: Architecture | None
    num_classes: int | None
    layer_scale: bool


_SAM = Fit(known.SAM, None, None, layer_scale=False)


def infer(state: State) -> Fit | None:
    """The named model whose sizes the shapes in `state` show, or None when no one's are.

    Only the sizes fit: single tensors may still be missing. Head counts of attention leave no
    trace in the shapes and are those of the variant.
    """
    try:
        if "local_conv_1.weight" in state:
            return _SAM if _sam_sizes(state) else None
        sizes = _sizes(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None
    for variant in VARIANTS.values():
        if all(getattr(variant, field) == value for field, value in sizes.items()):
            return _fit(state, variant)
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
        fit = _fit(state, architecture)
    elif name is not None:
        fit = _SAM
    if fit is None:
        raise CheckpointError(
            f"{path} is of no known model: its {len(state)} tensors are {listed(state)}; expected "
            f"the sizes of {', '.join(known.list_models())}. Describe another one in a recipe"
        )
    fit = _headed(path, fit, num_classes, features)
    if features:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    with torch.device("meta"):  # no weights are drawn that would only be replaced
        model = _model(state, fit, features).eval()
    _fill(path, model, state, fit, shown)
    return model, fit


def _fit(state: State, architecture: Architecture) -> Fit:
    name = next((name for name, each in VARIANTS.items() if each == architecture), None)
    head = state.get("head.weight")
    classes = head.shape[0] if head is not None and head.ndim else None
    return Fit(name, architecture, classes, any(key.endswith(".gamma_1") for key in state))


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


def _model(state: State, fit: Fit, features: bool) -> nn.Module:
    if fit.architecture is not None:
        return SMT(
            fit.architecture,
            num_classes=fit.num_classes or 0,
            layer_scale=fit.layer_scale,
            features=features,
        )
    if infer(state) != _SAM:
        return SAM(256)  # some SAM, to say what is missing
    dim, heads, expand_ratio = _sam_sizes(state)
    return SAM(dim, heads, qkv_bias="v.bias" in state, expand_ratio=expand_ratio)


def _fill(path: Path, model: nn.Module, state: State, fit: Fit, shown: Fit | None) -> None:
    """Put `state` into `model`, every tensor of which is on the meta device.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape or kind.
    """
    expected = model.state_dict()
    counters = {
        key: torch.zeros_like(expected[key], device="cpu")
        for key in expected
        if key.endswith(_COUNTER)
    }
    state = counters | dict(state)
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    other = [
        f"{key} is {_kind(state[key])} instead of {_kind(tensor)}"
        for key, tensor in expected.items()
        if key in state and _kind(state[key]) != _kind(tensor)
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    if any(wrong.values()):
        found = "; ".join(
            f"{len(keys)} {how} ({listed(keys)})" for how, keys in wrong.items() if keys
        )
        if shown is not None and shown.name != fit.name:
            remedy = f"Its shapes are those of {shown.name}: use --model {shown.name}"
        else:
            remedy = "Use a checkpoint of this model, or describe the checkpoint's in a recipe"
        raise CheckpointError(
            f"{path} does not fit {fit.name or 'the architecture'}, which has {len(expected)} "
            f"tensors: {found}. {remedy}"
        )
    model.load_state_dict(state, assign=True)


def _kind(tensor: Tensor) -> str:
    kind = "" if tensor.dtype == torch.float32 else f" {tensor.dtype}".replace("torch.", "")
    return f"{tuple(tensor.shape)}{kind}"


def _sizes(state: State) -> dict[str, object]:
    """The fields of `Architecture` that leave a trace in the shapes."""
    stages = range(1, STAGES + 1)
    dims = tuple(state[f"norm{i}.weight"].shape[0] for i in stages)
    wide = [state[f"block{i}.0.mlp.fc1.weight"].shape[0] for i in stages]
    head = [state[f"block{i}.0.attn.local_conv_1.weight"].shape[0] for i in stages[:-1]]
    return {
        "dims": dims,
        "depths": tuple(
            1 + max(int(key.split(".")[1]) for key in state if key.startswith(f"block{i}."))
            for i in stages
        ),
        "mlp_ratios": tuple(hidden / dim for hidden, dim in zip(wide, dims, strict=True)),
        "sam_heads": tuple(dim / part for dim, part in zip(dims, head, strict=False)),
        "stem_kernel": state["patch_embed1.conv.0.weight"].shape[-1],
        "expand_ratio": state["block1.0.attn.proj0.weight"].shape[0] / dims[0],
    }


def _sam_sizes(state: State) -> tuple[int, int, int]:
    """Channels, heads and expand ratio of a SAM module."""
    dim = state["proj.weight"].shape[0]
    return (
        dim,
        dim // state["local_conv_1.weight"].shape[0],
        state["proj0.weight"].shape[0] // dim,
    )
