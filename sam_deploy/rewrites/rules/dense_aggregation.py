"""SAA's grouped 1x1 convolution with fewer groups, or none (option aggregation).

    blockdiag(W_1 .. W_G) x = W x,   W zero outside the blocks

"dense" makes it one plain matrix product, which runtimes have fast kernels for. "blocked" joins
groups until each reads 16 channels: the blocks in which ONNX Runtime's convolutions hold images on
a CPU with AVX-512, so that the image need not leave them. Both do more arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Refused, Rule
from sam_deploy.rewrites.static import StaticSAM

_BLOCK = 16  # channels


def _pattern(sam: StaticSAM, options: RewriteOptions) -> bool:
    return options.aggregation != "grouped" and sam.proj0.groups > 1


def _rewrite(sam: StaticSAM, options: RewriteOptions) -> nn.Module:
    grouped = sam.proj0
    groups = 1 if options.aggregation == "dense" else _blocks(grouped)
    fewer = nn.Conv2d(
        grouped.in_channels,
        grouped.out_channels,
        1,
        groups=groups,
        bias=False,
        dtype=grouped.weight.dtype,
    )
    weights = grouped.weight.detach().flatten(1).chunk(grouped.groups)
    joined = grouped.groups // groups
    blocks: list[Tensor] = [
        torch.block_diag(*weights[first : first + joined])  # type: ignore[no-untyped-call]
        for first in range(0, grouped.groups, joined)
    ]
    fewer.weight = nn.Parameter(torch.cat(blocks)[:, :, None, None], requires_grad=False)
    fewer.bias = grouped.bias
    sam.proj0 = fewer
    return sam


def _blocks(grouped: nn.Conv2d) -> int:
    """How many groups of 16 channels there are.

    Raises:
        Refused: its groups do not make up such blocks.
    """
    channels = grouped.in_channels
    size = channels // grouped.groups
    if channels % _BLOCK or _BLOCK % size or size == _BLOCK:
        raise Refused(f"{channels} channels in groups of {size} make no blocks of {_BLOCK}")
    return channels // _BLOCK


RULE = Rule("dense_aggregation", "blockdiag(W_1..W_G) x = W x", StaticSAM, _pattern, _rewrite)
