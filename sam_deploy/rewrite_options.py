"""Which of several equal forms the rewriting pass produces."""

from __future__ import annotations

from typing import Literal, get_args, get_type_hints

import msgspec


class RewriteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The forms to choose; every combination computes the same function.

    The defaults are what `benchmarks/forms.py` found fastest on ONNX Runtime's CPU provider, of the
    forms in its table: what would cost a GPU a layer is not a default.
    """

    heads: Literal["merged", "separate"] = "merged"
    """MHMC as one zero-padded depthwise convolution, or one convolution a head."""
    aggregation: Literal["dense", "blocked", "grouped"] = "grouped"
    """SAA's first 1x1 convolution as dense (zeros filled in), in groups of 16 channels or in its
    C/heads groups."""
    projections: Literal["joined", "separate"] = "separate"
    """v|s and q|k|v as one linear map and a Split, or as separate ones."""
    linear: Literal["conv", "matmul", "gemm"] = "conv"
    """Linear maps as 1x1 convolutions on images, or as MatMul or Gemm on tokens."""
    anchors: Literal["identity", "none"] = "none"
    """A 1x1 depthwise convolution by 1 where an image that several layers read comes out of a
    LayerNorm: ONNX Runtime's CPU provider then holds it in its convolutions' own layout. On a GPU
    it is one more layer for nothing."""

    @property
    def text(self) -> str:
        """The chosen forms, in their order."""
        return " ".join(msgspec.structs.astuple(self))

    def __post_init__(self) -> None:
        """Refuse an unknown form, and combinations that leave a shuffle behind or anchor nothing.

        Raises:
            ValueError: naming the field and what it takes (msgspec adds the path).
        """
        for field, annotation in get_type_hints(type(self)).items():
            forms, given = get_args(annotation), getattr(self, field)
            if given not in forms:
                raise ValueError(
                    f"{field} is {given!r}, expected one of {', '.join(map(repr, forms))}"
                )
        if self.heads == "separate" and self.aggregation != "dense":
            raise ValueError(
                "heads = 'separate' needs aggregation = 'dense': between separate heads and a "
                "grouped convolution the head shuffle can be folded into neither"
            )
        if self.anchors == "identity" and self.linear != "conv":
            raise ValueError(
                "anchors = 'identity' needs linear = 'conv': linear maps on tokens read no image"
            )
