"""A small segmentation U-Net with two SAM blocks pasted in: from its definition to `engine(x)`.

    python examples/unet.py [OUT]

or from the shell, the same network through its factory:

    cd examples && sam-export --model unet:make --fp16 --name unet
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import sam_deploy

SIZE = (96, 128)  # height and width; other sizes are other bundles
CLASSES = 5


class SAM(nn.Module):
    """Scale-aware modulation as it is pasted into networks: reshapes, and a loop over heads."""

    def __init__(self, dim: int, heads: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.ca_num_heads = heads
        width = dim // heads
        self.v = nn.Linear(dim, dim)
        self.s = nn.Linear(dim, dim)
        for i in range(heads):
            conv = nn.Conv2d(width, width, 3 + 2 * i, padding=1 + i, groups=width)
            setattr(self, f"local_conv_{i + 1}", conv)
        self.proj0 = nn.Conv2d(dim, dim * expand, 1, groups=width)
        self.bn = nn.BatchNorm2d(dim * expand)
        self.act = nn.GELU()
        self.proj1 = nn.Conv2d(dim * expand, dim, 1)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:
        """Tokens (B, H*W, C) to tokens."""
        B, N, C = x.shape
        heads = self.s(x).reshape(B, H, W, self.ca_num_heads, -1).permute(3, 0, 4, 1, 2)
        mixed = [getattr(self, f"local_conv_{i + 1}")(heads[i]) for i in range(self.ca_num_heads)]
        shuffled = torch.stack(mixed, dim=2).reshape(B, C, H, W)
        modulator = self.proj1(self.act(self.bn(self.proj0(shuffled))))
        return self.proj(modulator.reshape(B, C, N).transpose(1, 2) * self.v(x))


class Stage(nn.Module):
    """A convolution, then SAM on its result as tokens, with a residual."""

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(dim_in, dim, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(dim)
        )
        self.sam = SAM(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, C_in, H, W) to half its height and width."""
        x = self.conv(x).relu()
        B, C, H, W = x.shape
        tokens = self.sam(x.flatten(2).transpose(1, 2), H, W)
        return x + tokens.transpose(1, 2).reshape(B, C, H, W)


class UNet(nn.Module):
    """Two stages down, two up with a skip; scores, and the class of every pixel."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.down1 = Stage(3, 16)
        self.down2 = Stage(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.scores = nn.Conv2d(32, classes, 3, padding=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image (B, 3, H, W) to scores (B, classes, H, W) and classes (B, H, W)."""
        fine = self.down1(image)
        coarse = self.up(self.down2(fine))
        scores = self.scores(torch.cat([fine, coarse], dim=1))
        scores = nn.functional.interpolate(scores, scale_factor=2, mode="bilinear")
        return {"scores": scores, "classes": scores.argmax(dim=1)}


def make() -> tuple[nn.Module, Tensor]:
    """The factory for `sam-export --model unet:make`: the network and its example input."""
    torch.manual_seed(0)
    network = UNet()
    for part in network.modules():  # as after some training: BatchNorm that does something
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return network, torch.randn(2, 3, *SIZE)


def main(out: Path) -> None:
    """Export the network, load the bundle, and compare."""
    network, example = make()
    done = sam_deploy.export(network, example, out=out, precision="fp16", force=True)
    print(f"rewritten: {done.manifest.rewrites.fired}")

    engine = sam_deploy.load(out)
    x = torch.randn(3, 3, *SIZE)
    found = engine(x.numpy())
    with torch.no_grad():
        expected = network.eval()(x)
    for name, array in found.items():
        equal = np.isclose(array, expected[name].numpy(), atol=2e-3).mean()
        print(f"{name} {array.shape} {array.dtype}: {equal:.2%} as in PyTorch")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "engines/unet"))
