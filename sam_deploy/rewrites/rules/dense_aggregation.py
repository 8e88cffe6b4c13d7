"""SAA's grouped 1x1 convolution as a dense one (option aggregation = "dense").

    blockdiag(W_1 .. W_G) x = W x,   W zero outside the blocks

More arithmetic, but a plain matrix product, which runtimes have fast kernels for.
"""

from __future__ import annotations

import torch
from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import StaticSAM


def _pattern(module: nn.Module, options: RewriteOptions) -> bool:
    return (
        options.aggregation == "dense"
        and isinstance(module, StaticSAM)
        and module.proj0.groups > 1
    )


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    assert isinstance(module, StaticSAM)
    grouped = module.proj0
    dense = nn.Conv2d(
        grouped.in_channels, grouped.out_channels, 1, bias=False, dtype=grouped.weight.dtype
    )
    blocks = grouped.weight.detach().flatten(1).chunk(grouped.groups)
    dense.weight = nn.Parameter(torch.block_diag(*blocks)[:, :, None, None], requires_grad=False)
    dense.bias = grouped.bias
    module.proj0 = dense
    return module


RULE = Rule("dense_aggregation", "blockdiag(W_1..W_G) x = W x", _pattern, _rewrite)
