"""Which model a state dict is of, told by the names and shapes in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from sam_deploy import architecture as known
from sam_deploy.architecture import STAGES, VARIANTS, Architecture
from sam_deploy.models.sam import SAM
from sam_deploy.models.smt import SMT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    State = Mapping[str, Tensor]


class Fit(NamedTuple):
    """What a state dict is of.

    `name` is None for an architecture that is no named variant, `architecture` for the SAM module
    on its own, `num_classes` where there is no head.
    """

    name: str | None
    architecture: Architecture | None
    num_classes: int | None
    layer_scale: bool


SAM_FIT = Fit(known.SAM, None, None, layer_scale=False)


def infer(state: State) -> Fit | None:
    """The named model whose sizes the shapes in `state` show, or None when no one's are.

    Only the sizes fit: single tensors may still be missing. Head counts of attention leave no
    trace in the shapes and are those of the variant.
    """
    try:
        if "local_conv_1.weight" in state:
            return SAM_FIT if _sam_sizes(state) else None
        sizes = _sizes(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None
    for variant in VARIANTS.values():
        if all(getattr(variant, field) == value for field, value in sizes.items()):
            return fit_of(state, variant)
    return None


def fit_of(state: State, architecture: Architecture) -> Fit:
    """`state` taken as one of `architecture`: its name, class count and layer scale."""
    name = next((name for name, each in VARIANTS.items() if each == architecture), None)
    head = state.get("head.weight")
    classes = head.shape[0] if head is not None and head.ndim and head.numel() else None
    return Fit(name, architecture, classes, any(key.endswith(".gamma_1") for key in state))


def empty_model(state: State, fit: Fit, *, features: bool = False) -> nn.Module:
    """The model of a fit, on the meta device: no weights are drawn that would only be replaced."""
    with torch.device("meta"):
        if fit.architecture is not None:
            return SMT(
                fit.architecture,
                num_classes=fit.num_classes or 0,
                layer_scale=fit.layer_scale,
                features=features,
            ).eval()
        if infer(state) != SAM_FIT:
            return SAM(256).eval()  # some SAM, to say what is missing
        dim, heads, expand_ratio = _sam_sizes(state)
        return SAM(dim, heads, qkv_bias="v.bias" in state, expand_ratio=expand_ratio).eval()


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
    """Channels, heads and expand ratio of a SAM module.

    Raises:
        ValueError: no SAM has such shapes; a file could ask for millions of heads.
    """
    if not all(tensor.numel() for tensor in state.values()):
        raise ValueError("an empty tensor says nothing of the others' sizes")
    dim = state["proj.weight"].shape[0]
    heads, odd = divmod(dim, state["local_conv_1.weight"].shape[0])
    expand_ratio = state["proj0.weight"].shape[0] // dim
    if odd or not 0 < heads <= len(state) or expand_ratio < 1:
        raise ValueError(f"dim {dim}, {heads} heads, expand ratio {expand_ratio}")
    return dim, heads, expand_ratio
