"""Scale-Aware Modulation: multi-scale depthwise convolutions that modulate a value projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_deploy.errors import InputError


class SAM(nn.Module):
    """The SAM block's token mixer (arXiv 2307.08579, section 3.1, equations 1 to 4).

    With `h` heads, head i = 1..h a depthwise convolution of kernel 2i+1 (MHMC), and the
    aggregation A (SAA: interleave heads, grouped 1x1, BatchNorm, GELU, 1x1):

        y = proj(A(concat_i dw_i(s(x)_i)) * v(x))

    Signature and parameter names are those of the module as people paste it; `sa_num_heads`,
    `qk_scale` and `attn_drop` belong to attention and are accepted for that reason only.
    """

    def __init__(
        self,
        dim: int,
        ca_num_heads: int = 4,
        sa_num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        expand_ratio: int = 2,
    ) -> None:
        super().__init__()
        if dim < 1 or ca_num_heads < 1 or dim % ca_num_heads or expand_ratio < 1:
            raise InputError(
                f"SAM takes a dim that its heads divide and an expand ratio from 1; "
                f"got dim {dim}, heads {ca_num_heads}, expand ratio {expand_ratio}"
            )
        self.dim = dim
        self.ca_num_heads = ca_num_heads
        self.split_groups = dim // ca_num_heads
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.s = nn.Linear(dim, dim, bias=qkv_bias)
        for head in range(1, ca_num_heads + 1):
            channels = self.split_groups
            conv = nn.Conv2d(channels, channels, 2 * head + 1, padding=head, groups=channels)
            setattr(self, f"local_conv_{head}", conv)
        self.proj0 = nn.Conv2d(dim, dim * expand_ratio, 1, groups=self.split_groups)
        self.bn = nn.BatchNorm2d(dim * expand_ratio)
        self.act = nn.GELU()
        self.proj1 = nn.Conv2d(dim * expand_ratio, dim, 1)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:  # noqa: N803 (official names)
        """Mix tokens `x` (B, H*W, dim), row-major, into tokens of the same shape."""
        batch = x.shape[0]
        image = self.s(x).transpose(1, 2).reshape(batch, self.dim, H, W)
        heads = [
            getattr(self, f"local_conv_{head}")(part)
            for head, part in enumerate(image.chunk(self.ca_num_heads, dim=1), start=1)
        ]
        # channel g*h + i of the mixed image is channel g of head i
        mixed = torch.stack(heads, dim=2).reshape(batch, self.dim, H, W)
        modulator = self.proj1(self.act(self.bn(self.proj0(mixed))))
        tokens = modulator.flatten(2).transpose(1, 2)
        out: Tensor = self.proj_drop(self.proj(tokens * self.v(x)))
        return out
