"""The whole Scale-Aware Modulation Transformer: classifier or backbone."""

from __future__ import annotations

from torch import Tensor, nn

from sam_deploy.architecture import STAGES, Architecture
from sam_deploy.models.attention import Attention
from sam_deploy.models.block import Block
from sam_deploy.models.sam import SAM

LayerOutput = tuple[Tensor, int, int]  # tokens (B, H*W, C), H, W


def _tokens(image: Tensor) -> Tensor:
    return image.flatten(2).transpose(1, 2)


class Head(nn.Module):
    """Embedding of stage 1: Conv stride 2, BatchNorm, ReLU, Conv stride 2, LayerNorm."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, dim, kernel, stride=2, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 2, stride=2),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> LayerOutput:
        """Image (B, 3, H, W) to tokens at stride 4 and their grid."""
        x = self.conv(x)
        return self.norm(_tokens(x)), x.shape[2], x.shape[3]


class OverlapPatchEmbed(nn.Module):
    """Embedding of stages 2 to 4: Conv 3x3 stride 2, LayerNorm."""

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim_in, dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> LayerOutput:
        """Image (B, C_in, H, W) to tokens at half the size and their grid."""
        x = self.proj(x)
        return self.norm(_tokens(x)), x.shape[2], x.shape[3]


class SMT(nn.Module):
    """SMT (arXiv 2307.08579): four stages at stride 4, 8, 16, 32; SAM early, attention late.

    As a classifier images (B, 3, H, W) become logits (B, num_classes), or with 0 classes the
    pooled features (B, C_4); with `features` they become the four normed maps (B, C_i, H_i, W_i).
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int = 1000,
        layer_scale: bool = False,
        features: bool = False,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.num_stages = STAGES
        self.depths = list(architecture.depths)
        self.num_classes = num_classes
        self.features = features
        for stage, (dim, depth) in enumerate(zip(architecture.dims, self.depths, strict=True)):
            embed = (
                Head(dim, architecture.stem_kernel)
                if stage == 0
                else OverlapPatchEmbed(architecture.dims[stage - 1], dim)
            )
            blocks = [
                Block(
                    _mixer(architecture, stage, j),
                    dim * architecture.mlp_ratios[stage],
                    layer_scale,
                )
                for j in range(depth)
            ]
            self.add_module(f"patch_embed{stage + 1}", embed)
            self.add_module(f"block{stage + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(dim, eps=1e-6))
        if not features:
            self.head: nn.Module = (
                nn.Linear(architecture.dims[-1], num_classes) if num_classes else nn.Identity()
            )
        self.apply(_init)

    def forward_stages(self, x: Tensor) -> list[LayerOutput]:
        """The normed tokens and grid of each stage for images (B, 3, H, W)."""
        outputs: list[LayerOutput] = []
        for stage in range(1, self.num_stages + 1):
            tokens, height, width = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"block{stage}"):
                tokens = block(tokens, height, width)
            tokens = getattr(self, f"norm{stage}")(tokens)
            x = tokens.transpose(1, 2).reshape(x.shape[0], tokens.shape[2], height, width)
            outputs.append((tokens, height, width))
        return outputs

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the pooled features (B, C_4)."""
        return self.forward_stages(x)[-1][0].mean(dim=1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Images (B, 3, H, W), float, normalised; see the class for what comes out."""
        if self.features:
            return tuple(
                tokens.transpose(1, 2).reshape(x.shape[0], tokens.shape[2], height, width)
                for tokens, height, width in self.forward_stages(x)
            )
        out: Tensor = self.head(self.forward_features(x))
        return out


def _mixer(architecture: Architecture, stage: int, j: int) -> SAM | Attention:
    """SAM in stages 1 and 2 and at even j of stage 3, attention elsewhere."""
    dim = architecture.dims[stage]
    if stage < 2 or (stage == 2 and j % 2 == 0):
        return SAM(
            dim,
            architecture.sam_heads[stage],
            qkv_bias=True,
            expand_ratio=architecture.expand_ratio,
        )
    return Attention(dim, architecture.attention_heads[stage - 2])


def _init(module: nn.Module) -> None:
    """The paper's initialisation: truncated normal 0.02, convolutions by their fan-out."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=(2.0 / (fan_out // module.groups)) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
