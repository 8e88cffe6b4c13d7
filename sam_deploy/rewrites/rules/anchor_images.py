"""Images anchored in the layout of convolutions (option anchors = "identity").

    x = 1 * x,   a depthwise 1x1 convolution whose weights are 1

ONNX Runtime's CPU provider computes convolutions on images in blocks of 16 channels. From a
LayerNorm it takes an image straight into blocks where a single convolution reads it; where several
layers do, it transposes first, and a residual stream that begins outside blocks never enters them.
The anchor is that single convolution, behind the LayerNorm of an embedding (the residual stream
begins there) and the first of a block (the projections read it).
"""

from __future__ import annotations

import torch
from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Layout, Norm, StaticBlock, StaticEmbed


def _pattern(module: nn.Module, options: RewriteOptions) -> bool:
    norm = _norm(module)
    return (
        options.anchors == "identity"
        and norm is not None
        and norm.target is Layout.IMAGE
        and norm.anchor is None
    )


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    norm = _norm(module)
    assert norm is not None
    channels = norm.weight.shape[0]
    anchor = nn.Conv2d(channels, channels, 1, groups=channels, bias=False, dtype=norm.weight.dtype)
    anchor.weight = nn.Parameter(torch.ones_like(anchor.weight), requires_grad=False)
    norm.anchor = anchor
    return module


def _norm(module: nn.Module) -> Norm | None:
    if isinstance(module, StaticBlock):
        return module.norm1
    return module.norm if isinstance(module, StaticEmbed) else None


RULE = Rule("anchor_images", "x = 1 * x", nn.Module, _pattern, _rewrite)
