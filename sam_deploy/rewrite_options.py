"""Which of several equal forms the rewriting pass produces."""

from __future__ import annotations

from typing import Literal

import msgspec


class RewriteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The forms to choose; every combination computes the same function.

    The defaults are what `benchmarks/forms.py` found fastest on ONNX Runtime's CPU provider.
    """

    heads: Literal["merged", "separate"] = "merged"
    """MHMC as one zero-padded depthwise convolution, or one convolution a head."""
    aggregation: Literal["dense", "grouped"] = "grouped"
    """SAA's first 1x1 convolution as dense (zeros filled in) or in its C/heads groups."""
    projections: Literal["joined", "separate"] = "separate"
    """v|s and q|k|v as one linear map and a Split, or as separate ones."""
    linear: Literal["conv", "matmul", "gemm"] = "conv"
    """Linear maps as 1x1 convolutions on images, or as MatMul or Gemm on tokens."""

    def __post_init__(self) -> None:
        """Refuse the one combination that leaves a shuffle behind.

        Raises:
            ValueError: separate heads with grouped aggregation.
        """
        if self.heads == "separate" and self.aggregation == "grouped":
            raise ValueError(
                "heads = 'separate' needs aggregation = 'dense': between separate heads and a "
                "grouped convolution the head shuffle can be folded into neither"
            )
