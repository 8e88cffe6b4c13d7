"""What an SMT is, as data: the numbers that tell its variants apart.

Source: "Scale-Aware Modulation Meet Transformer" (arXiv 2307.08579), section 3 and table 1.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sam_deploy.errors import InputError, nearest

# Far above every SMT, and far below what would only fill the memory.
Channels = Annotated[int, Meta(ge=1, le=2**14)]
Depth = Annotated[int, Meta(ge=1, le=512)]
Heads = Annotated[int, Meta(ge=1, le=64)]
Ratio = Annotated[int, Meta(ge=1, le=32)]
Kernel = Annotated[int, Meta(ge=1, le=31)]

STAGES = 4
STRIDES = (4, 8, 16, 32)  # of the four stages' feature maps
MIN_IMAGE_PX = 32


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The shape of an SMT. Stages 1 and 2 hold SAM blocks, stage 4 attention, stage 3 alternates.

    `sam_heads` are the heads (kernel sizes 3, 5, 7, ...) of SAM in stages 1 to 3,
    `attention_heads` those of attention in stages 3 and 4. Channel counts are per stage.
    """

    dims: tuple[Channels, Channels, Channels, Channels]
    depths: tuple[Depth, Depth, Depth, Depth]
    mlp_ratios: tuple[Ratio, Ratio, Ratio, Ratio] = (4, 4, 4, 2)
    sam_heads: tuple[Heads, Heads, Heads] = (4, 4, 4)
    attention_heads: tuple[Heads, Heads] = (8, 16)
    stem_kernel: Kernel = 3
    expand_ratio: Ratio = 2

    def __post_init__(self) -> None:
        """Refuse numbers that do not divide.

        Raises:
            ValueError: naming the stage (msgspec turns it into a validation error with a path).
        """
        for stage, heads in enumerate(self.sam_heads):
            uses_sam = stage < 2 or self.depths[2] > 0
            if uses_sam and self.dims[stage] % heads:
                raise ValueError(
                    f"dims[{stage}] = {self.dims[stage]} is not divisible by "
                    f"sam_heads[{stage}] = {heads}"
                )
        for stage, heads in zip((2, 3), self.attention_heads, strict=True):
            if self.dims[stage] % heads:
                raise ValueError(
                    f"dims[{stage}] = {self.dims[stage]} is not divisible by "
                    f"attention_heads[{stage - 2}] = {heads}"
                )
        if self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel = {self.stem_kernel} must be odd")


VARIANTS: dict[str, Architecture] = {
    "smt_t": Architecture(dims=(64, 128, 256, 512), depths=(2, 2, 8, 1)),
    "smt_s": Architecture(dims=(64, 128, 256, 512), depths=(3, 4, 18, 2)),
    "smt_b": Architecture(
        dims=(64, 128, 256, 512), depths=(4, 6, 28, 2), mlp_ratios=(8, 6, 4, 2), stem_kernel=7
    ),
    "smt_l": Architecture(
        dims=(96, 192, 384, 768), depths=(4, 6, 28, 4), mlp_ratios=(8, 6, 4, 2), stem_kernel=7
    ),
}

SAM = "sam"  # the module on its own, beside the whole models


def list_models() -> list[str]:
    """Names that `create_model` and `--model` take."""
    return [*VARIANTS, SAM]


def variant(name: str) -> Architecture:
    """The architecture called `name`.

    Raises:
        InputError: unknown name; the message offers the nearest one.
    """
    if name not in VARIANTS:
        raise InputError(
            f"unknown model {name!r}; known are {', '.join(list_models())}."
            + nearest(name, list_models())
        )
    return VARIANTS[name]
