"""Layer scale folded into the projection before it.

gamma * (W x + b) = (diag(gamma) W) x + gamma * b
"""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Pointwise, StaticBlock


def _pattern(block: StaticBlock, _: RewriteOptions) -> bool:
    return block.gamma_1 is not None or block.gamma_2 is not None


def _rewrite(block: StaticBlock, _: RewriteOptions) -> nn.Module:
    if block.gamma_1 is not None:
        block.attn.proj = _scaled(block.attn.proj, block.gamma_1)
        block.gamma_1 = None
    if block.gamma_2 is not None:
        block.mlp.fc2 = _scaled(block.mlp.fc2, block.gamma_2)
        block.gamma_2 = None
    return block


def _scaled(linear: Pointwise, gamma: Tensor) -> Pointwise:
    bias = None if linear.bias is None else gamma * linear.bias
    return Pointwise(gamma[:, None] * linear.weight, bias)


RULE = Rule(
    "fold_layer_scale",
    "gamma (Wx + b) = (diag(gamma) W) x + gamma b",
    StaticBlock,
    _pattern,
    _rewrite,
)
