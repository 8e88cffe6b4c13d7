"""Projections of one input as one linear map and a Split (option projections = "joined").

(W_1 x + b_1, W_2 x + b_2) = split([W_1; W_2] x + [b_1; b_2])
"""

from __future__ import annotations

import torch
from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Pointwise, StaticAttention, StaticSAM


def _pattern(module: nn.Module, options: RewriteOptions) -> bool:
    return options.projections == "joined" and (
        (isinstance(module, StaticSAM) and module.vs is None)
        or (isinstance(module, StaticAttention) and module.qkv is None)
    )


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    if isinstance(module, StaticSAM):
        assert module.v is not None
        assert module.s is not None
        module.vs = _joined(module.v, module.s)
        module.v = module.s = None
        return module
    assert isinstance(module, StaticAttention)
    assert module.q is not None
    assert module.k is not None
    assert module.v is not None
    module.qkv = _joined(module.q, module.k, module.v)
    module.q = module.k = module.v = None
    return module


def _joined(*maps: Pointwise) -> Pointwise:
    biases = [
        linear.weight.new_zeros(linear.weight.shape[0]) if linear.bias is None else linear.bias
        for linear in maps
    ]
    any_bias = any(linear.bias is not None for linear in maps)
    return Pointwise(
        torch.cat([linear.weight for linear in maps]), torch.cat(biases) if any_bias else None
    )


RULE = Rule("join_projections", "(W1 x, W2 x) = split([W1; W2] x)", nn.Module, _pattern, _rewrite)
