"""The residual block of SMT and its convolutional MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_deploy.models.attention import Attention
from sam_deploy.models.sam import SAM


class DWConv(nn.Module):
    """A depthwise 3x3 convolution on tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:  # noqa: N803 (official names)
        """Tokens (B, H*W, dim) to tokens of the same shape."""
        image = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], H, W)
        out: Tensor = self.dwconv(image).flatten(2).transpose(1, 2)
        return out


class Mlp(nn.Module):
    """fc2(GELU(y + dwconv(y))) with y = fc1(x) (arXiv 2307.08579; PVTv2's MLP with a residual)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:  # noqa: N803 (official names)
        """Tokens (B, H*W, dim) to tokens of the same shape."""
        y = self.fc1(x)
        out: Tensor = self.fc2(self.act(y + self.dwconv(y, H, W)))
        return out


class Block(nn.Module):
    """x + gamma_1 * attn(norm1(x)), then x + gamma_2 * mlp(norm2(x)); SAM or attention as `attn`.

    Without layer scale `gamma_1` and `gamma_2` are the float 1.0, as in the official class.
    """

    gamma_1: Tensor | float
    gamma_2: Tensor | float

    def __init__(self, attn: SAM | Attention, hidden: int, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(attn.dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(attn.dim, eps=1e-6)
        self.mlp = Mlp(attn.dim, hidden)
        if layer_scale:
            self.gamma_1 = nn.Parameter(torch.full((attn.dim,), 1e-4))
            self.gamma_2 = nn.Parameter(torch.full((attn.dim,), 1e-4))
        else:
            self.gamma_1 = self.gamma_2 = 1.0

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:  # noqa: N803 (official names)
        """Tokens (B, H*W, dim) to tokens of the same shape."""
        x = x + self.gamma_1 * self.attn(self.norm1(x), H, W)
        x = x + self.gamma_2 * self.mlp(self.norm2(x), H, W)
        return x
