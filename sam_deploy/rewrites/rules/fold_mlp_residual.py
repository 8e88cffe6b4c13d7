"""The MLP's residual folded into the centre tap of its depthwise kernel.

y + (K * y) = (K + delta) * y,   delta = 1 at the kernel's centre, 0 elsewhere
"""

from __future__ import annotations

import copy

from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import StaticMlp


def _pattern(mlp: StaticMlp, _: RewriteOptions) -> bool:
    return mlp.residual


def _rewrite(mlp: StaticMlp, _: RewriteOptions) -> nn.Module:
    conv = copy.deepcopy(mlp.dwconv)  # another module may hold the same convolution
    height, width = conv.kernel_size
    weight = conv.weight.detach().clone()
    weight[:, :, height // 2, width // 2] += 1
    conv.weight = nn.Parameter(weight, requires_grad=False)
    mlp.dwconv = conv
    mlp.residual = False
    return mlp


RULE = Rule("fold_mlp_residual", "y + K*y = (K + delta)*y", StaticMlp, _pattern, _rewrite)
