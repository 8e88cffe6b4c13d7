"""Networks as users have them: the official classes' attributes and signatures, written afresh.

One `Attention` for both kinds, loops over `getattr`, activations kept on the module, layer scale
as a float where it is off. They share nothing with `sam_deploy.models` but parameter names.
"""

import torch
from torch import nn


class DropPath(nn.Module):
    def __init__(self, drop_prob=0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training or self.drop_prob == 0.0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop_prob
        return x * kept / (1 - self.drop_prob)


class DWConv(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x, H, W):
        B, _, C = x.shape
        image = x.permute(0, 2, 1).contiguous().view(B, C, H, W)
        return self.dwconv(image).view(B, C, H * W).permute(0, 2, 1)


class Mlp(nn.Module):
    def __init__(self, dim, hidden, drop=0.1):
        super().__init__()
        self.fc2 = nn.Linear(hidden, dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden)
        self.act = nn.GELU()
        self.drop = nn.Dropout(drop)

    def forward(self, x, H, W):
        x = self.fc1(x)
        x = self.drop(self.act(self.dwconv(x, H, W) + x))
        return self.drop(self.fc2(x))


class Attention(nn.Module):
    def __init__(self, dim, ca_num_heads, sa_num_heads, ca_attention, expand_ratio=2, bias=True):
        super().__init__()
        self.dim, self.ca_attention = dim, ca_attention
        self.ca_num_heads, self.sa_num_heads = ca_num_heads, sa_num_heads
        self.act = nn.GELU()
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(0.1)
        self.split_groups = dim // ca_num_heads
        if ca_attention == 1:
            self.v = nn.Linear(dim, dim, bias=bias)
            self.s = nn.Linear(dim, dim, bias=bias)
            size = self.split_groups
            for i in range(ca_num_heads):
                conv = nn.Conv2d(size, size, 3 + 2 * i, 1, 1 + i, groups=size)
                setattr(self, f"local_conv_{i + 1}", conv)
            self.proj0 = nn.Conv2d(dim, dim * expand_ratio, 1, groups=size)
            self.bn = nn.BatchNorm2d(dim * expand_ratio)
            self.proj1 = nn.Conv2d(dim * expand_ratio, dim, 1)
        else:
            self.scale = (dim // sa_num_heads) ** -0.5
            self.q = nn.Linear(dim, dim, bias=bias)
            self.kv = nn.Linear(dim, dim * 2, bias=bias)
            self.attn_drop = nn.Dropout(0.1)
            self.local_conv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x, H, W):
        B, N, C = x.shape
        if self.ca_attention == 1:
            v = self.v(x)
            s = self.s(x).reshape(B, H, W, self.ca_num_heads, C // self.ca_num_heads)
            s = s.permute(3, 0, 4, 1, 2)
            collected = None
            for i in range(self.ca_num_heads):
                conv = getattr(self, f"local_conv_{i + 1}")
                part = conv(s[i]).reshape(B, self.split_groups, 1, H, W)
                collected = part if collected is None else torch.cat([collected, part], 2)
            collected = collected.reshape(B, C, H, W)
            collected = self.proj1(self.act(self.bn(self.proj0(collected))))
            self.modulator = collected
            x = collected.reshape(B, C, N).permute(0, 2, 1) * v
        else:
            width = C // self.sa_num_heads
            q = self.q(x).reshape(B, N, self.sa_num_heads, width).permute(0, 2, 1, 3)
            kv = self.kv(x).reshape(B, N, 2, self.sa_num_heads, width).permute(2, 0, 3, 1, 4)
            k, v = kv[0], kv[1]
            weights = self.attn_drop(((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1))
            image = v.transpose(1, 2).reshape(B, N, C).transpose(1, 2).view(B, C, H, W)
            local = self.local_conv(image).view(B, C, N).transpose(1, 2)
            x = (weights @ v).transpose(1, 2).reshape(B, N, C) + local
        return self.proj_drop(self.proj(x))


class Block(nn.Module):
    def __init__(self, attn, hidden, layer_scale=False):
        super().__init__()
        dim = attn.dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.drop_path = DropPath(0.1)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)
        self.gamma_1, self.gamma_2 = 1.0, 1.0
        if layer_scale:
            self.gamma_1 = nn.Parameter(torch.ones(dim))
            self.gamma_2 = nn.Parameter(torch.ones(dim))

    def forward(self, x, H, W):
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x), H, W))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x), H, W))


class Head(nn.Module):
    def __init__(self, dim, kernel):
        super().__init__()
        stem = nn.Conv2d(3, dim, kernel, 2, kernel // 2, bias=False)
        down = nn.Conv2d(dim, dim, 2, 2)
        self.conv = nn.Sequential(stem, nn.BatchNorm2d(dim), nn.ReLU(True), down)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        x = self.conv(x)
        _, _, H, W = x.shape
        return self.norm(x.flatten(2).permute(0, 2, 1)), H, W


class OverlapPatchEmbed(nn.Module):
    def __init__(self, dim_in, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim_in, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        x = self.proj(x)
        _, _, H, W = x.shape
        return self.norm(x.flatten(2).permute(0, 2, 1)), H, W


class Backbone(nn.Module):
    """The detection and segmentation kind: no head, four maps in a list."""

    def __init__(self, architecture, layer_scale=False):
        super().__init__()
        a = architecture
        self.num_stages, self.depths = 4, list(a.depths)
        for i in range(4):
            blocks = []
            for j in range(a.depths[i]):
                sam = i < 2 or (i == 2 and j % 2 == 0)
                ca = a.sam_heads[i] if sam else -1
                sa = -1 if sam else a.attention_heads[i - 2]
                attn = Attention(a.dims[i], ca, sa, 1 if sam else 0, a.expand_ratio)
                blocks.append(Block(attn, a.dims[i] * a.mlp_ratios[i], layer_scale))
            embed = Head(a.dims[0], a.stem_kernel)
            if i:
                embed = OverlapPatchEmbed(a.dims[i - 1], a.dims[i])
            setattr(self, f"patch_embed{i + 1}", embed)
            setattr(self, f"block{i + 1}", nn.ModuleList(blocks))
            setattr(self, f"norm{i + 1}", nn.LayerNorm(a.dims[i], eps=1e-6))

    def maps(self, x):
        outs = []
        for i in range(self.num_stages):
            x, H, W = getattr(self, f"patch_embed{i + 1}")(x)
            for blk in getattr(self, f"block{i + 1}"):
                x = blk(x, H, W)
            x = getattr(self, f"norm{i + 1}")(x)
            x = x.reshape(x.shape[0], H, W, -1).permute(0, 3, 1, 2).contiguous()
            outs.append(x)
        return outs

    def forward(self, x):
        return self.maps(x)


class SMT(Backbone):
    """The classifier."""

    def __init__(self, architecture, num_classes=1000, layer_scale=False):
        super().__init__(architecture, layer_scale)
        self.num_classes = num_classes
        dim = architecture.dims[-1]
        self.head = nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, x):
        return self.maps(x)[-1].flatten(2).mean(dim=2)

    def forward(self, x):
        return self.head(self.forward_features(x))


class PastedSAM(nn.Module):
    """The module alone, as users paste it into their networks."""

    def __init__(self, dim, ca_num_heads=4, qkv_bias=False, proj_drop=0.1, expand_ratio=2):
        super().__init__()
        self.ca_num_heads = ca_num_heads
        self.split_groups = dim // ca_num_heads
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.s = nn.Linear(dim, dim, bias=qkv_bias)
        for i in range(ca_num_heads):
            size = self.split_groups
            setattr(
                self,
                f"local_conv_{i + 1}",
                nn.Conv2d(size, size, kernel_size=2 * i + 3, padding=i + 1, groups=size),
            )
        self.proj0 = nn.Conv2d(dim, dim * expand_ratio, 1, groups=self.split_groups)
        self.bn = nn.BatchNorm2d(dim * expand_ratio)
        self.proj1 = nn.Conv2d(dim * expand_ratio, dim, 1)
        self.act = nn.GELU()
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x, H, W):
        B, N, C = x.shape
        parts = self.s(x).transpose(1, 2).view(B, self.ca_num_heads, -1, H, W).unbind(1)
        outs = [getattr(self, f"local_conv_{i + 1}")(p) for i, p in enumerate(parts)]
        mixed = torch.stack(outs, 2).flatten(1, 2)
        self.modulator = self.proj1(self.act(self.bn(self.proj0(mixed))))
        x = self.modulator.view(B, C, N).transpose(1, 2) * self.v(x)
        return self.proj_drop(self.proj(x))


class UNet(nn.Module):
    """Convolutions around two SAM blocks at two sizes; `sam` makes them from a dim."""

    def __init__(self, sam=PastedSAM):
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm1 = nn.BatchNorm2d(8)
        self.sam1 = sam(8)
        self.down2 = nn.Conv2d(8, 16, 3, 2, 1)
        self.sam2 = sam(16)
        self.up2 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.up1 = nn.ConvTranspose2d(8, 2, 2, 2)

    @staticmethod
    def mixed(sam, x):
        B, C, H, W = x.shape
        return x + sam(x.flatten(2).transpose(1, 2), H, W).transpose(1, 2).reshape(B, C, H, W)

    def forward(self, x):
        skip = self.mixed(self.sam1, torch.relu(self.norm1(self.down1(x))))
        deep = self.mixed(self.sam2, self.down2(skip))
        return self.up1(self.up2(deep) + skip)
