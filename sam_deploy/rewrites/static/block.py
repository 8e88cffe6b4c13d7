"""The residual block and its MLP as static graphs."""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.rewrites.static.attention import StaticAttention
from sam_deploy.rewrites.static.layout import Layout
from sam_deploy.rewrites.static.ops import Norm, Pointwise
from sam_deploy.rewrites.static.sam import StaticSAM
from sam_deploy.rewrites.static.token_module import TokenModule


class StaticMlp(TokenModule):
    """y = fc2(act(z + dwconv(z))), z = fc1(x); `residual` is False once folded into the kernel."""

    def __init__(
        self, *, fc1: Pointwise, dwconv: nn.Conv2d, act: nn.Module, fc2: Pointwise
    ) -> None:
        super().__init__()
        self.fc1 = fc1
        self.dwconv = dwconv
        self.residual = True
        self.act = act
        self.fc2 = fc2

    def mix(self, x: Tensor) -> Tensor:
        """Feature (B, H, W, C) or (B, C, H, W), as `self.layout` says, to the same shape."""
        z = self.layout.to(Layout.IMAGE, self.fc1(x))
        local = self.dwconv(z)
        if self.residual:
            local = z + local
        out: Tensor = self.fc2(Layout.IMAGE.to(self.layout, self.act(local)))
        return out


class StaticBlock(TokenModule):
    """x + gamma_1 * attn(norm1(x)), then x + gamma_2 * mlp(norm2(x)); folded scales are None.

    Scales (C,) stand in tokens layout only: they are folded before a layout changes.
    """

    gamma_1: Tensor | None
    gamma_2: Tensor | None

    def __init__(
        self,
        *,
        norm1: nn.LayerNorm,
        attn: StaticSAM | StaticAttention,
        gamma_1: Tensor | None,
        norm2: nn.LayerNorm,
        mlp: StaticMlp,
        gamma_2: Tensor | None,
    ) -> None:
        super().__init__()
        self.norm1 = Norm(norm1, self.layout, self.layout)
        self.attn = attn
        self.norm2 = Norm(norm2, self.layout, self.layout)
        self.mlp = mlp
        self.register_buffer("gamma_1", gamma_1)
        self.register_buffer("gamma_2", gamma_2)

    def mix(self, x: Tensor) -> Tensor:
        """Feature (B, H, W, C) or (B, C, H, W), as `self.layout` says, to the same shape."""
        attended: Tensor = self.attn(self.norm1(x))
        x = x + (attended if self.gamma_1 is None else self.gamma_1 * attended)
        mixed: Tensor = self.mlp(self.norm2(x))
        return x + (mixed if self.gamma_2 is None else self.gamma_2 * mixed)
