"""Tokens and images without runtime sizes, head loops unrolled.

    reshape(transpose(x (B, N, C)), (B, C, H, W)) = permute(x (B, H, W, C))

so that with tokens kept as (B, H, W, C) every change between them is one Transpose of known axes.
This is where modules are recognised: by structure, then by comparing numbers on a probe.
"""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._parts import part
from sam_deploy.rewrites._probe import output_of, probe_images, probe_tokens
from sam_deploy.rewrites._recognise import (
    looks_like_attention,
    looks_like_block,
    looks_like_mlp,
    looks_like_sam,
    static_attention,
    static_block,
    static_mlp,
    static_sam,
)
from sam_deploy.rewrites._recognise_smt import looks_like_smt, static_smt
from sam_deploy.rewrites._rule import Refused, Rule
from sam_deploy.rewrites.static.smt import Output
from sam_deploy.rewrites.static.token_module import TokenModule

_KINDS = (  # each with the part that says how many channels it takes
    (looks_like_block, static_block, "norm1"),
    (looks_like_sam, static_sam, "s"),
    (looks_like_attention, static_attention, "q"),
    (looks_like_mlp, static_mlp, "fc1"),
)


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return looks_like_smt(module) or any(looks_like(module) for looks_like, *_ in _KINDS)


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    static = _smt(module) if looks_like_smt(module) else _token_module(module)
    for name, value in vars(module).items():  # the network around it may read its `dim`, say
        if isinstance(value, int | float | str) and not hasattr(static, name):
            setattr(static, name, value)
    return static


def _token_module(module: nn.Module) -> nn.Module:
    make, name = next((make, name) for looks_like, make, name in _KINDS if looks_like(module))
    static: TokenModule = make(module)
    # of a Linear as of a LayerNorm, the last dimension is what it takes
    probe_tokens(module, static, module.get_parameter(f"{name}.weight").shape[-1])
    return static


def _smt(module: nn.Module) -> nn.Module:
    stem = part(module, "patch_embed1", nn.Module)
    channels = next((m.in_channels for m in stem.modules() if isinstance(m, nn.Conv2d)), None)
    if channels is None:
        raise Refused("its patch_embed1 has no convolution")
    outputs = output_of(module, channels)
    kinds: dict[type, Output] = {Tensor: "head", list: "list", tuple: "tuple"}
    if type(outputs) not in kinds:
        raise Refused(f"it returns a {type(outputs).__name__}, expected a tensor, list or tuple")
    static = static_smt(module, kinds[type(outputs)])
    probe_images(module, static, channels)
    return static


RULE = Rule(
    "static_shapes",
    "reshape(transpose(tokens), image sizes) = permute(tokens as (B, H, W, C))",
    nn.Module,
    _pattern,
    _rewrite,
)
