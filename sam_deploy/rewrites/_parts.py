"""The parts that SMT's modules are recognised by: each is what it should be, or refused."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from sam_deploy.rewrites._rule import Refused

Kind = TypeVar("Kind", bound=nn.Module)


def part(module: nn.Module, name: str, kind: type[Kind]) -> Kind:
    """The child `name` of `module`, which must be a `kind`; refused otherwise."""
    child = getattr(module, name, None)
    if not isinstance(child, kind):
        raise Refused(f"{name} is {type(child).__name__}, expected {kind.__name__}")
    return child


def layer_norm(module: nn.Module, name: str) -> nn.LayerNorm:
    """The LayerNorm `name` over one dimension, with an affine; refused otherwise."""
    norm = part(module, name, nn.LayerNorm)
    if len(norm.normalized_shape) != 1 or norm.weight is None:
        raise Refused(f"{name} is not a LayerNorm over the channels with a scale")
    return norm


def depthwise(module: object, name: str) -> nn.Conv2d:
    """The depthwise convolution `name` that keeps an image's size; refused otherwise."""
    conv = getattr(module, name, None)
    if not isinstance(conv, nn.Conv2d):
        raise Refused(f"{name} is {type(conv).__name__}, expected Conv2d")
    same = all(size % 2 for size in conv.kernel_size) and conv.padding in (
        "same",
        tuple(size // 2 for size in conv.kernel_size),
    )
    if (
        not (conv.groups == conv.in_channels == conv.out_channels)
        or not same
        or conv.padding_mode != "zeros"
        or conv.stride != (1, 1)
        or conv.dilation != (1, 1)
    ):
        raise Refused(f"{name} is not a depthwise convolution that keeps the image's size: {conv}")
    return conv


def pointwise_conv(module: nn.Module, name: str) -> nn.Conv2d:
    """The 1x1 convolution `name`, grouped or not; refused otherwise."""
    conv = part(module, name, nn.Conv2d)
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.padding not in ((0, 0), "same"):
        raise Refused(f"{name} is not a 1x1 convolution: {conv}")
    return conv


def activation(module: nn.Module) -> nn.Module:
    """The module `act`, GELU where there is none; refused if it has parameters."""
    act = getattr(module, "act", None)
    if act is None:
        return nn.GELU()  # pasted copies may call F.gelu; the probe tells if it is something else
    if not isinstance(act, nn.Module) or any(True for _ in act.parameters()):
        raise Refused(f"act is {type(act).__name__}, expected a module without parameters")
    return act


def layer_scale(module: nn.Module, name: str, channels: int) -> Tensor | None:
    """The scale `name` of shape (channels,), None where it is absent or 1.0; refused otherwise."""
    gamma = getattr(module, name, 1.0)
    if not isinstance(gamma, Tensor):
        if gamma == 1.0:
            return None
        raise Refused(f"{name} is {gamma!r}, expected a tensor or 1.0")
    if gamma.shape != (channels,):
        raise Refused(f"{name} has shape {tuple(gamma.shape)}, expected ({channels},)")
    return gamma.detach()
