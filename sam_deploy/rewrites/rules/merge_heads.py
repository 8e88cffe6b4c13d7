"""MHMC's heads as one depthwise convolution (option heads = "merged").

    concat_i (K_i * s_i) = K * s,   K = concat_i pad(K_i, k_max)

A kernel padded with zeros around its centre, and the image padded accordingly, convolves the same.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import MergedHeads, SeparateHeads, StaticSAM


def _pattern(sam: StaticSAM, options: RewriteOptions) -> bool:
    return options.heads == "merged" and isinstance(sam.local_conv, SeparateHeads)


def _rewrite(sam: StaticSAM, _: RewriteOptions) -> nn.Module:
    convs = [conv for conv in sam.local_conv.modules() if isinstance(conv, nn.Conv2d)]
    height = max(conv.kernel_size[0] for conv in convs)
    width = max(conv.kernel_size[1] for conv in convs)
    channels = sum(conv.in_channels for conv in convs)
    merged = nn.Conv2d(
        channels,
        channels,
        (height, width),
        padding=(height // 2, width // 2),
        groups=channels,
        dtype=convs[0].weight.dtype,
    )
    biases = [
        conv.weight.new_zeros(conv.in_channels) if conv.bias is None else conv.bias
        for conv in convs
    ]
    merged.weight = nn.Parameter(
        torch.cat([_padded(conv, height, width) for conv in convs]).detach(), requires_grad=False
    )
    merged.bias = nn.Parameter(torch.cat(biases).detach(), requires_grad=False)
    sam.local_conv = MergedHeads(merged, len(convs))
    return sam


def _padded(conv: nn.Conv2d, height: int, width: int) -> torch.Tensor:
    rows = (height - conv.kernel_size[0]) // 2
    columns = (width - conv.kernel_size[1]) // 2
    return F.pad(conv.weight, (columns, columns, rows, rows))


RULE = Rule(
    "merge_heads", "concat_i(K_i * s_i) = concat_i(pad(K_i)) * s", StaticSAM, _pattern, _rewrite
)
