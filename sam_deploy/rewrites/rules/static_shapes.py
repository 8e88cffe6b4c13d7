"""Tokens and images without runtime sizes, head loops unrolled.

    reshape(transpose(x (B, N, C)), (B, C, H, W)) = permute(x (B, H, W, C))

so that with tokens kept as (B, H, W, C) every change between them is one Transpose of known axes.
This is where modules are recognised: by structure, then by comparing numbers on a probe.
"""

from __future__ import annotations

from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
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

_KINDS = (
    (looks_like_block, static_block),
    (looks_like_sam, static_sam),
    (looks_like_attention, static_attention),
    (looks_like_mlp, static_mlp),
)


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return looks_like_smt(module) or any(looks_like(module) for looks_like, _ in _KINDS)


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    if looks_like_smt(module):
        return _smt(module)
    make = next(make for looks_like, make in _KINDS if looks_like(module))
    static: TokenModule = make(module)
    probe_tokens(module, static, _channels(module))
    return static


def _smt(module: nn.Module) -> nn.Module:
    channels = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if channels is None:
        raise Refused("it has no convolution")
    outputs = output_of(module, channels)
    kind: Output = "head"
    if isinstance(outputs, list | tuple):
        kind = "list" if isinstance(outputs, list) else "tuple"
    static = static_smt(module, kind)
    probe_images(module, static, channels)
    return static


def _channels(module: nn.Module) -> int:
    first = next(m for m in module.modules() if isinstance(m, nn.Linear | nn.LayerNorm))
    return first.in_features if isinstance(first, nn.Linear) else first.normalized_shape[0]


RULE = Rule(
    "static_shapes",
    "reshape(transpose(tokens), image sizes) = permute(tokens as (B, H, W, C))",
    nn.Module,
    _pattern,
    _rewrite,
)
