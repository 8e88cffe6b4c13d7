"""The whole SMT as a static graph."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sam_deploy.rewrites.static.block import StaticBlock
from sam_deploy.rewrites.static.layout import Layout
from sam_deploy.rewrites.static.ops import Norm

Output = Literal["head", "tuple", "list"]


class StaticEmbed(nn.Module):
    """Convolutions, then LayerNorm: an image becomes the feature that a stage's blocks take.

    The convolutions keep their official name: `conv` in stage 1, `proj` in the others.
    """

    def __init__(self, name: str, convs: nn.Module, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, convs)
        self.norm = Norm(norm, Layout.IMAGE, Layout.TOKENS)

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, C_in, H, W) to a feature in the stage's layout."""
        out: Tensor = self.norm(self.get_submodule(self.name)(image))
        return out


class StaticSMT(nn.Module):
    """Embedding, blocks, norm per stage; then mean and `head`, or the four feature maps.

    `output` says which: "head", or the kind of sequence the maps come in.
    """

    def __init__(
        self,
        stages: list[tuple[StaticEmbed, list[StaticBlock], nn.LayerNorm]],
        head: nn.Module | None,
        output: Output,
    ) -> None:
        super().__init__()
        self.num_stages = len(stages)
        self.output = output
        for index, (embed, blocks, norm) in enumerate(stages, start=1):
            pooled = output == "head" and index == len(stages)
            target = Layout.TOKENS if pooled else Layout.IMAGE
            self.add_module(f"patch_embed{index}", embed)
            self.add_module(f"block{index}", nn.ModuleList(blocks))
            self.add_module(f"norm{index}", Norm(norm, Layout.TOKENS, target))
        if head is not None:
            self.head = head

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...] | list[Tensor]:
        """Images (B, 3, H, W) to logits (B, K), or to maps (B, C_i, H_i, W_i)."""
        maps: list[Tensor] = []
        for index in range(1, self.num_stages + 1):
            x = self.get_submodule(f"patch_embed{index}")(x)
            for block in self.get_submodule(f"block{index}").children():
                x = block(x)
            x = self.get_submodule(f"norm{index}")(x)
            maps.append(x)
        if self.output == "head":
            out: Tensor = self.head(x.mean(dim=(1, 2)))
            return out
        return maps if self.output == "list" else tuple(maps)
