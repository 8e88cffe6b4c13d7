"""Attention as a static graph."""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.rewrites.static.layout import Layout
from sam_deploy.rewrites.static.ops import Pointwise
from sam_deploy.rewrites.static.token_module import TokenModule


class StaticAttention(TokenModule):
    """y = proj(softmax(scale * q k^T) v + local_conv(v)); `scale` is None once folded into q.

    `q`, `k` and `v` are None once joined into `qkv`.
    """

    def __init__(
        self,
        *,
        q: Pointwise,
        k: Pointwise,
        v: Pointwise,
        heads: int,
        scale: float,
        local_conv: nn.Conv2d,
        proj: Pointwise,
    ) -> None:
        super().__init__()
        self.qkv: Pointwise | None = None
        self.q: Pointwise | None = q
        self.k: Pointwise | None = k
        self.v: Pointwise | None = v
        self.heads = heads
        self.scale: float | None = scale
        self.local_conv = local_conv
        self.proj = proj

    def mix(self, x: Tensor) -> Tensor:
        """Feature (B, H, W, C) or (B, C, H, W), as `self.layout` says, to the same shape."""
        if self.qkv is not None:
            q, k, v = self.qkv(x).chunk(3, dim=self.layout.channel_dim)
        else:
            assert self.q is not None
            assert self.k is not None
            assert self.v is not None
            q, k, v = self.q(x), self.k(x), self.v(x)
        scores = self._by_head(q) @ self._by_head(k).transpose(2, 3)
        if self.scale is not None:
            scores = scores * self.scale
        attended = scores.softmax(dim=-1) @ self._by_head(v)
        local = self.local_conv(self.layout.to(Layout.IMAGE, v))
        out: Tensor = self.proj(
            self._joined(attended, like=v) + Layout.IMAGE.to(self.layout, local)
        )
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        """The feature as (B, heads, N, d)."""
        if self.layout is Layout.IMAGE:
            channels, height, width = x.shape[1:]
            split = x.reshape(-1, self.heads, channels // self.heads, height * width)
            return split.transpose(2, 3)
        height, width, channels = x.shape[1:]
        split = x.reshape(-1, height * width, self.heads, channels // self.heads)
        return split.transpose(1, 2)

    def _joined(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, heads, N, d) as a feature with the sizes of `like`."""
        moved = x.transpose(2, 3) if self.layout is Layout.IMAGE else x.transpose(1, 2)
        return moved.reshape(-1, *like.shape[1:])
