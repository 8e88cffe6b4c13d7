"""The attention scale folded into the query projection.

    t (W_q x + b_q) k^T = ((t W_q) x + t b_q) k^T,   t = d^(-1/2)
"""

from __future__ import annotations

from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Pointwise, StaticAttention


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return isinstance(module, StaticAttention) and module.scale is not None


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    assert isinstance(module, StaticAttention)
    assert module.q is not None
    assert module.scale is not None
    bias = None if module.q.bias is None else module.scale * module.q.bias
    module.q = Pointwise(module.scale * module.q.weight, bias)
    module.scale = None
    return module


RULE = Rule("fold_attention_scale", "t (Wq x + b) k' = ((t Wq) x + t b) k'", _pattern, _rewrite)
