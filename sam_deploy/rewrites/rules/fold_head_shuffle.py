"""The interleaving of heads folded into the weights on one side of it.

    before, with merged heads:   P (K * (W x + b)) = (P K) * ((P W) x + P b)
    behind, with separate heads: A (P x) = (A P) x      for a dense aggregation A

P permutes channels; a depthwise convolution commutes with it when its kernels move along.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Refused, Rule
from sam_deploy.rewrites.static import MergedHeads, Pointwise, StaticSAM


def _pattern(sam: StaticSAM, _: RewriteOptions) -> bool:
    return sam.shuffle is not None


def _rewrite(sam: StaticSAM, _: RewriteOptions) -> nn.Module:
    assert sam.shuffle is not None
    # source[c] is the head-after-head channel that stands at interleaved position c
    source = torch.arange(sam.proj0.in_channels).reshape(sam.shuffle.heads, -1).T.flatten()
    if isinstance(sam.local_conv, MergedHeads):
        s, conv = sam.s, copy.deepcopy(sam.local_conv.conv)
        assert s is not None
        assert conv.bias is not None
        conv.weight, conv.bias = _frozen(conv.weight[source]), _frozen(conv.bias[source])
        sam.local_conv.conv = conv
        sam.s = Pointwise(s.weight[source], None if s.bias is None else s.bias[source])
    elif sam.proj0.groups == 1:
        dense = copy.deepcopy(sam.proj0)
        dense.weight = _frozen(dense.weight[:, torch.argsort(source)])
        sam.proj0 = dense
    else:
        raise Refused("its heads are separate and its aggregation is grouped")
    sam.shuffle = None
    return sam


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


RULE = Rule(
    "fold_head_shuffle",
    "P(K*(Wx + b)) = (PK)*((PW)x + Pb);  A(Px) = (AP)x",
    StaticSAM,
    _pattern,
    _rewrite,
)
