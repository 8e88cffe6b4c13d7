"""BatchNorm folded into the convolution before it, in the stem and in SAA.

    bn(W x + b) = (g / s) W x + (g / s) (b - m) + beta,   s = sqrt(var + eps)

with the running mean m and variance of evaluation mode.
"""

from __future__ import annotations

import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Refused, Rule
from sam_deploy.rewrites.static import StaticEmbed, StaticSAM


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return isinstance(module, StaticSAM | StaticEmbed) and any(
        isinstance(child, nn.BatchNorm2d) for child in module.modules()
    )


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    if isinstance(module, StaticSAM):
        assert module.bn is not None
        module.proj0 = _fused(module.proj0, module.bn)
        module.bn = None
        return module
    convs = module.get_submodule(str(module.name))
    if type(convs) is not nn.Sequential:
        raise Refused("its BatchNorm does not stand in a Sequential, behind a convolution")
    pairs = [
        (index, before, norm)
        for index, (before, norm) in enumerate(itertools.pairwise(convs))
        if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
    if not pairs:
        raise Refused("its BatchNorm does not stand behind a convolution")
    for index, before, norm in pairs:
        convs[index] = _fused(before, norm)
        convs[index + 1] = nn.Identity()
    return module


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    if norm.running_mean is None:
        raise Refused("its BatchNorm keeps no running statistics")
    return fuse_conv_bn_eval(conv, norm)


RULE = Rule(
    "fold_batch_norm",
    "bn(Wx + b) = (g/s) W x + (g/s)(b - m) + beta, s = sqrt(var + eps)",
    nn.Module,
    _pattern,
    _rewrite,
)
