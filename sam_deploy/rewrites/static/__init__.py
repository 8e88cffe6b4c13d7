"""The same modules as a static graph: four-dimensional throughout, no runtime sizes, no loops.

These are what the rules rewrite into and then simplify. Each keeps its official child names, so a
path such as `block3.2.attn.proj0` means the same in PyTorch, in ONNX and in an engine's profile.
"""

from torch import nn

from sam_deploy.rewrites.static.attention import StaticAttention
from sam_deploy.rewrites.static.block import StaticBlock, StaticMlp
from sam_deploy.rewrites.static.layout import Layout
from sam_deploy.rewrites.static.ops import Norm, Pointwise
from sam_deploy.rewrites.static.sam import MergedHeads, SeparateHeads, Shuffle, StaticSAM
from sam_deploy.rewrites.static.smt import StaticEmbed, StaticSMT
from sam_deploy.rewrites.static.token_module import TokenModule

__all__ = [
    "Layout",
    "MergedHeads",
    "Norm",
    "Pointwise",
    "SeparateHeads",
    "Shuffle",
    "StaticAttention",
    "StaticBlock",
    "StaticEmbed",
    "StaticMlp",
    "StaticSAM",
    "StaticSMT",
    "static_paths",
]


def static_paths(module: nn.Module) -> list[str]:
    """The paths in a rewritten `module` of what was made static; '' is the module itself."""
    found: list[str] = []
    for path, part in module.named_modules():
        inside = any(outer == "" or path.startswith(outer + ".") for outer in found)
        if isinstance(part, TokenModule | StaticSMT) and not inside:
            found.append(path)
    return found
