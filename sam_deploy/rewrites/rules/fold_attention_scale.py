"""The attention scale folded into the query projection.

t (W_q x + b_q) k^T = ((t W_q) x + t b_q) k^T,   t = d^(-1/2)
"""

from __future__ import annotations

from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Pointwise, StaticAttention


def _pattern(attention: StaticAttention, _: RewriteOptions) -> bool:
    return attention.scale is not None


def _rewrite(attention: StaticAttention, _: RewriteOptions) -> nn.Module:
    q, scale = attention.q, attention.scale
    assert q is not None
    assert scale is not None
    attention.q = Pointwise(scale * q.weight, None if q.bias is None else scale * q.bias)
    attention.scale = None
    return attention


RULE = Rule(
    "fold_attention_scale",
    "t (Wq x + b) k' = ((t Wq) x + t b) k'",
    StaticAttention,
    _pattern,
    _rewrite,
)
