"""Where the channels stand: images (B, C, H, W) or tokens (B, H, W, C), always four-dimensional.

Tokens and image are then one Transpose apart and no size is ever computed.
"""

from __future__ import annotations

import enum

from torch import Tensor


class Layout(enum.Enum):
    """The layout that a module's residual stream runs in."""

    IMAGE = "image"
    TOKENS = "tokens"

    @property
    def channel_dim(self) -> int:
        """The dimension that holds the channels."""
        return 1 if self is Layout.IMAGE else 3

    def to(self, target: Layout, x: Tensor) -> Tensor:
        """`x`, which is in this layout, in the layout `target`."""
        if self is target:
            return x
        return x.permute(0, 3, 1, 2) if target is Layout.IMAGE else x.permute(0, 2, 3, 1)
