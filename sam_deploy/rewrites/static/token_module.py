"""What the static SAM, attention, MLP and block have in common: two ways to be called."""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.rewrites.static.layout import Layout


class TokenModule(nn.Module):
    """A map of tokens to tokens, called inside a static network or in place of an official module.

    `forward(x)` takes and gives the four-dimensional `self.layout`. `forward(x, H, W)` is the
    official signature: tokens (B, H*W, C) in and out, whatever network is around.
    """

    layout: Layout = Layout.TOKENS

    def forward(self, x: Tensor, H: int | None = None, W: int | None = None) -> Tensor:  # noqa: N803
        """See the class; `H` and `W` are given together or not at all."""
        if H is None or W is None:
            return self.mix(x)
        tokens = x.reshape(-1, H, W, x.shape[-1])
        y = self.mix(Layout.TOKENS.to(self.layout, tokens))
        tokens = self.layout.to(Layout.TOKENS, y)
        return tokens.reshape(-1, H * W, tokens.shape[-1])

    def mix(self, x: Tensor) -> Tensor:
        """The map itself, in `self.layout`."""
        raise AssertionError(f"{type(self).__name__} must say what it computes")
