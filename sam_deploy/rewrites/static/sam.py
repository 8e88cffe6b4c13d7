"""The SAM module as a static graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_deploy.rewrites.static.layout import Layout
from sam_deploy.rewrites.static.ops import Pointwise
from sam_deploy.rewrites.static.token_module import TokenModule


class SeparateHeads(nn.Module):
    """MHMC as written: a depthwise convolution a head, concatenated head after head."""

    def __init__(self, convs: list[nn.Conv2d]) -> None:
        super().__init__()
        self.sizes = [conv.in_channels for conv in convs]
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) to an image of the same shape."""
        parts = torch.split(x, self.sizes, dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)


class MergedHeads(nn.Module):
    """MHMC as one depthwise convolution, the smaller kernels padded with zeros."""

    def __init__(self, conv: nn.Conv2d, head_count: int) -> None:
        super().__init__()
        self.conv = conv
        self.head_count = head_count

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) to an image of the same shape."""
        out: Tensor = self.conv(x)
        return out


class Shuffle(nn.Module):
    """Interleave heads: channel i*G + g becomes channel g*heads + i, with G = C / heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) to an image of the same shape."""
        channels, height, width = x.shape[1:]
        heads = x.reshape(-1, self.heads, channels // self.heads, height * width)
        return heads.transpose(1, 2).reshape(-1, channels, height, width)


class StaticSAM(TokenModule):
    """y = proj(proj1(act(bn(proj0(shuffle(heads(s(x))))))) * v(x)); steps that are gone are None.

    `v` and `s` are None once joined into `vs`.
    """

    def __init__(
        self,
        *,
        v: Pointwise,
        s: Pointwise,
        heads: SeparateHeads,
        proj0: nn.Conv2d,
        bn: nn.BatchNorm2d,
        act: nn.Module,
        proj1: nn.Conv2d,
        proj: Pointwise,
    ) -> None:
        super().__init__()
        self.vs: Pointwise | None = None
        self.v: Pointwise | None = v
        self.s: Pointwise | None = s
        self.local_conv: SeparateHeads | MergedHeads = heads
        self.shuffle: Shuffle | None = Shuffle(len(heads.sizes))
        self.proj0 = proj0
        self.bn: nn.BatchNorm2d | None = bn
        self.act = act
        self.proj1 = proj1
        self.proj = proj

    def mix(self, x: Tensor) -> Tensor:
        """Feature (B, H, W, C) or (B, C, H, W), as `self.layout` says, to the same shape."""
        if self.vs is not None:
            v, s = self.vs(x).chunk(2, dim=self.layout.channel_dim)
        else:
            assert self.v is not None
            assert self.s is not None
            v, s = self.v(x), self.s(x)
        mixed = self.local_conv(self.layout.to(Layout.IMAGE, s))
        if self.shuffle is not None:
            mixed = self.shuffle(mixed)
        expanded = self.proj0(mixed)
        if self.bn is not None:
            expanded = self.bn(expanded)
        modulator = self.proj1(self.act(expanded))
        out: Tensor = self.proj(Layout.IMAGE.to(self.layout, modulator) * v)
        return out
