"""Recognise a whole SMT, classifier or backbone."""

from __future__ import annotations

from torch import nn

from sam_deploy.rewrites._parts import layer_norm, part
from sam_deploy.rewrites._recognise import static_block
from sam_deploy.rewrites._rule import Refused
from sam_deploy.rewrites.static import StaticBlock, StaticEmbed, StaticSMT
from sam_deploy.rewrites.static.smt import Output


def looks_like_smt(module: nn.Module) -> bool:
    """Whether the module claims to be an SMT, rightly or not."""
    return all(hasattr(module, name) for name in ("num_stages", "patch_embed1", "block1", "norm1"))


def static_smt(module: nn.Module, output: Output) -> StaticSMT:
    """Embeddings, blocks and norms of `num_stages` stages; `head` with output "head"."""
    stages = module.num_stages
    if not isinstance(stages, int) or stages < 1:
        raise Refused(f"num_stages is {stages!r}, expected a number of stages")
    head = part(module, "head", nn.Module) if output == "head" else None
    return StaticSMT([_stage(module, index) for index in range(1, stages + 1)], head, output)


def _stage(module: nn.Module, index: int) -> tuple[StaticEmbed, list[StaticBlock], nn.LayerNorm]:
    embed = part(module, f"patch_embed{index}", nn.Module)
    name = "conv" if hasattr(embed, "conv") else "proj"
    convs = part(embed, name, nn.Module)
    blocks: list[StaticBlock] = []
    for j, block in enumerate(part(module, f"block{index}", nn.ModuleList)):
        try:
            blocks.append(static_block(block))
        except Refused as refusal:
            raise Refused(f"block{index}.{j}: {refusal}") from None
    return (
        StaticEmbed(name, convs, layer_norm(embed, "norm")),
        blocks,
        layer_norm(module, f"norm{index}"),
    )
