"""Multi-head self-attention with a depthwise convolution on the values."""

from __future__ import annotations

from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of SMT's later stages (arXiv 2307.08579, section 3.2).

        y = proj(softmax(q k^T / sqrt(d)) v + local_conv(v as an image)),  d = dim / heads

    Parameter names are the official ones: `q`, `kv` (k then v, each head-major), `local_conv`.
    """

    def __init__(self, dim: int, sa_num_heads: int = 8, qkv_bias: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.sa_num_heads = sa_num_heads
        self.scale = (dim // sa_num_heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.local_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:  # noqa: N803 (official names)
        """Mix tokens `x` (B, H*W, dim), row-major, into tokens of the same shape."""
        batch, tokens, dim = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, self.sa_num_heads, -1).transpose(1, 2)

        k, v = self.kv(x).chunk(2, dim=-1)
        weights = (heads(self.q(x)) @ heads(k).transpose(-2, -1) * self.scale).softmax(dim=-1)
        attended = (weights @ heads(v)).transpose(1, 2).reshape(batch, tokens, dim)
        local = self.local_conv(v.transpose(1, 2).reshape(batch, dim, H, W))
        out: Tensor = self.proj(attended + local.flatten(2).transpose(1, 2))
        return out
