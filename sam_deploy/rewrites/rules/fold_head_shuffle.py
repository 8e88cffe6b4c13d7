"""The interleaving of heads folded into the weights on one side of it.

    before, with merged heads:   P (K * (W x + b)) = (P K) * ((P W) x + P b)
    behind, with separate heads: A (P x) = (A P) x      for a dense aggregation A

P permutes channels; a depthwise convolution commutes with it when its kernels move along.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Refused, Rule
from sam_deploy.rewrites.static import MergedHeads, Pointwise, StaticSAM


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return isinstance(module, StaticSAM) and module.shuffle is not None


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    assert isinstance(module, StaticSAM)
    assert module.shuffle is not None
    assert module.s is not None
    channels = module.proj0.in_channels
    # source[c] is the head-after-head channel that stands at interleaved position c
    source = torch.arange(channels).reshape(module.shuffle.heads, -1).T.flatten()
    if isinstance(module.local_conv, MergedHeads):
        conv, s = module.local_conv.conv, module.s
        conv.weight = _frozen(conv.weight[source])
        assert conv.bias is not None
        conv.bias = _frozen(conv.bias[source])
        module.s = Pointwise(s.weight[source], None if s.bias is None else s.bias[source])
    elif module.proj0.groups == 1:
        module.proj0.weight = _frozen(module.proj0.weight[:, torch.argsort(source)])
    else:
        raise Refused("its heads are separate and its aggregation is grouped")
    module.shuffle = None
    return module


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


RULE = Rule(
    "fold_head_shuffle",
    "P(K*(Wx + b)) = (PK)*((PW)x + Pb);  A(Px) = (AP)x",
    _pattern,
    _rewrite,
)
