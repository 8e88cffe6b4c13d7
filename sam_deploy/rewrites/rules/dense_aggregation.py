"""SAA's grouped 1x1 convolution as a dense one (option aggregation = "dense").

    blockdiag(W_1 .. W_G) x = W x,   W zero outside the blocks

More arithmetic, but a plain matrix product, which runtimes have fast kernels for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import StaticSAM


def _pattern(sam: StaticSAM, options: RewriteOptions) -> bool:
    return options.aggregation == "dense" and sam.proj0.groups > 1


def _rewrite(sam: StaticSAM, _: RewriteOptions) -> nn.Module:
    grouped = sam.proj0
    dense = nn.Conv2d(
        grouped.in_channels, grouped.out_channels, 1, bias=False, dtype=grouped.weight.dtype
    )
    blocks = grouped.weight.detach().flatten(1).chunk(grouped.groups)
    weight: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    dense.weight = nn.Parameter(weight[:, :, None, None], requires_grad=False)
    dense.bias = grouped.bias
    sam.proj0 = dense
    return sam


RULE = Rule("dense_aggregation", "blockdiag(W_1..W_G) x = W x", StaticSAM, _pattern, _rewrite)
