"""Linear maps on tokens as 1x1 convolutions on images, or as Gemm (option linear).

    W x[b, h, w, :] for every pixel  =  conv1x1(x as an image, W)  =  Gemm over (B*H*W, C)

As convolutions, everything between two LayerNorms stays an image: no Transpose is left there.
"""

from __future__ import annotations

from torch import nn

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Rule
from sam_deploy.rewrites.static import Layout, Norm, Pointwise, StaticBlock, StaticEmbed, StaticSMT
from sam_deploy.rewrites.static.token_module import TokenModule


def _pattern(module: nn.Module, options: RewriteOptions) -> bool:
    return options.linear != "matmul" and isinstance(module, StaticSMT | TokenModule)


def _rewrite(module: nn.Module, options: RewriteOptions) -> nn.Module:
    layout = Layout.IMAGE if options.linear == "conv" else Layout.TOKENS
    for inner in list(module.modules()):
        for name, child in list(inner.named_children()):
            if isinstance(child, Pointwise):
                setattr(inner, name, child.as_form(options.linear))
        _lay_out(inner, layout)
    return module


def _lay_out(module: nn.Module, layout: Layout) -> None:
    if isinstance(module, TokenModule):
        module.layout = layout
    if isinstance(module, StaticBlock):
        for norm in (module.norm1, module.norm2):
            norm.source = norm.target = layout
    elif isinstance(module, StaticEmbed):
        module.norm.target = layout
    elif isinstance(module, StaticSMT):
        for child in module.children():
            if isinstance(child, Norm):
                child.source = layout


RULE = Rule(
    "linear_form",
    "W x[b,h,w,:] = conv1x1(image, W) = gemm(tokens, W)",
    nn.Module,
    _pattern,
    _rewrite,
)
