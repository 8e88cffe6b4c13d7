"""Recognise SMT's modules by their parameters and attributes, and state them as static modules.

The official classes, a pasted copy and our own all have the same parts under the same names; what
`forward` does with them is not read but measured (`_probe.py`).
"""

from __future__ import annotations

from torch import nn

from sam_deploy.rewrites._parts import (
    activation,
    depthwise,
    layer_norm,
    layer_scale,
    part,
    pointwise_conv,
)
from sam_deploy.rewrites._rule import Refused
from sam_deploy.rewrites.static import (
    Pointwise,
    SeparateHeads,
    StaticAttention,
    StaticBlock,
    StaticMlp,
    StaticSAM,
)


def static_sam(module: nn.Module) -> StaticSAM:
    """SAM: v, s, local_conv_1.., proj0, bn, proj1, proj (spec, 'Computation')."""
    if getattr(module, "ca_attention", 1) != 1:
        raise Refused("ca_attention is not 1: this is attention, not SAM")
    s, v, proj = (part(module, name, nn.Linear) for name in ("s", "v", "proj"))
    convs: list[nn.Conv2d] = []
    while hasattr(module, f"local_conv_{len(convs) + 1}"):
        name = f"local_conv_{len(convs) + 1}"
        convs.append(depthwise(module, name))
    heads = getattr(module, "ca_num_heads", len(convs))
    if heads != len(convs):
        raise Refused(f"ca_num_heads is {heads}, but there are {len(convs)} local convolutions")
    sizes = {conv.in_channels for conv in convs}
    if len(sizes) != 1 or sum(conv.in_channels for conv in convs) != s.out_features:
        raise Refused(f"the heads' channels {sorted(sizes)} don't divide {s.out_features} evenly")
    proj0, proj1 = pointwise_conv(module, "proj0"), pointwise_conv(module, "proj1")
    if proj0.groups != s.out_features // heads:
        raise Refused(f"proj0 has {proj0.groups} groups, expected {s.out_features // heads}")
    return StaticSAM(
        v=Pointwise.of(v),
        s=Pointwise.of(s),
        heads=SeparateHeads(convs),
        proj0=proj0,
        bn=part(module, "bn", nn.BatchNorm2d),
        act=activation(module),
        proj1=proj1,
        proj=Pointwise.of(proj),
    )


def static_attention(module: nn.Module) -> StaticAttention:
    """Attention: q, kv, local_conv on v, proj."""
    if getattr(module, "ca_attention", 0) != 0:
        raise Refused("ca_attention is not 0: this is SAM, not attention")
    q, kv, proj = (part(module, name, nn.Linear) for name in ("q", "kv", "proj"))
    heads = getattr(module, "sa_num_heads", None) or getattr(module, "num_heads", None)
    if not isinstance(heads, int) or heads < 1 or q.out_features % heads:
        raise Refused(f"sa_num_heads is {heads}, expected a divisor of {q.out_features}")
    if kv.out_features != 2 * q.out_features:
        raise Refused(f"kv has {kv.out_features} outputs, expected {2 * q.out_features}")
    scale = getattr(module, "scale", (q.out_features // heads) ** -0.5)
    if not isinstance(scale, int | float):
        raise Refused(f"scale is {type(scale).__name__}, expected a number")
    k_weight, v_weight = kv.weight.chunk(2)
    k_bias, v_bias = (None, None) if kv.bias is None else kv.bias.chunk(2)
    return StaticAttention(
        q=Pointwise.of(q),
        k=Pointwise(k_weight, k_bias),
        v=Pointwise(v_weight, v_bias),
        heads=heads,
        scale=float(scale),
        local_conv=depthwise(module, "local_conv"),
        proj=Pointwise.of(proj),
    )


def static_mlp(module: nn.Module) -> StaticMlp:
    """The convolutional MLP: fc1, dwconv (held by a module of that name, or bare), fc2."""
    holder = getattr(module, "dwconv", module)
    return StaticMlp(
        fc1=Pointwise.of(part(module, "fc1", nn.Linear)),
        dwconv=depthwise(module if isinstance(holder, nn.Conv2d) else holder, "dwconv"),
        act=activation(module),
        fc2=Pointwise.of(part(module, "fc2", nn.Linear)),
    )


def static_block(module: nn.Module) -> StaticBlock:
    """The residual block: norm1, attn, norm2, mlp, and layer scale where it is a parameter."""
    attn = part(module, "attn", nn.Module)
    norm1 = layer_norm(module, "norm1")
    channels = norm1.normalized_shape[0]
    return StaticBlock(
        norm1=norm1,
        attn=static_sam(attn) if looks_like_sam(attn) else static_attention(attn),
        gamma_1=layer_scale(module, "gamma_1", channels),
        norm2=layer_norm(module, "norm2"),
        mlp=static_mlp(part(module, "mlp", nn.Module)),
        gamma_2=layer_scale(module, "gamma_2", channels),
    )


def looks_like_sam(module: nn.Module) -> bool:
    """Whether the module claims to be SAM, rightly or not."""
    return hasattr(module, "local_conv_1") and hasattr(module, "proj0")


def looks_like_attention(module: nn.Module) -> bool:
    """Whether the module claims to be SMT's attention, rightly or not."""
    return all(hasattr(module, name) for name in ("q", "kv", "local_conv"))


def looks_like_mlp(module: nn.Module) -> bool:
    """Whether the module claims to be SMT's MLP, rightly or not."""
    return all(hasattr(module, name) for name in ("fc1", "dwconv", "fc2"))


def looks_like_block(module: nn.Module) -> bool:
    """Whether the module claims to be SMT's block; any transformer's block has such names."""
    attn, mlp = getattr(module, "attn", None), getattr(module, "mlp", None)
    if not (isinstance(attn, nn.Module) and isinstance(mlp, nn.Module)):
        return False
    return looks_like_mlp(mlp) and (looks_like_sam(attn) or looks_like_attention(attn))
