"""Layer scale folded into the projection before it.

    gamma * (W x + b) = (diag(gamma) W) x + gamma * b
"""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Pointwise, StaticBlock


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return isinstance(module, StaticBlock) and (
        module.gamma_1 is not None or module.gamma_2 is not None
    )


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    assert isinstance(module, StaticBlock)
    if module.gamma_1 is not None:
        module.attn.proj = _scaled(module.attn.proj, module.gamma_1)
        module.gamma_1 = None
    if module.gamma_2 is not None:
        module.mlp.fc2 = _scaled(module.mlp.fc2, module.gamma_2)
        module.gamma_2 = None
    return module


def _scaled(linear: Pointwise, gamma: Tensor) -> Pointwise:
    bias = None if linear.bias is None else gamma * linear.bias
    return Pointwise(gamma[:, None] * linear.weight, bias)


RULE = Rule("fold_layer_scale", "gamma (Wx + b) = (diag(gamma) W) x + gamma b", _pattern, _rewrite)
