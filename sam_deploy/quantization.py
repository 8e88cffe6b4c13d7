"""How a model is quantized: what a recipe says of it, and what an export reports."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LayerKind = Literal["linear", "conv", "depthwise", "grouped", "first", "head"]
"""What a layer with weights is to the policy. "linear" is a MatMul, Gemm or 1x1 convolution,
"conv" another dense convolution, "first" the first layer on an input and "head" the last before an
output, whatever they are otherwise."""

CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse"]
SYNTHETIC = "synthetic"
"""What stands for a folder where built-in images are asked for."""


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What becomes INT8 (or FP8), and how its ranges are found.

    LayerNorm, softmax, GELU, the products of attention and additions have no weights and always
    stay in floats.
    """

    kinds: list[LayerKind] = msgspec.field(default_factory=lambda: ["linear", "conv"])
    """The kinds of layers that are quantized."""
    quantize: list[str] = []
    """Module paths (all below belongs to them) that are quantized whatever their kind."""
    keep: list[str] = []
    """Module paths that stay in floats; the longest path that matches a layer decides."""
    method: CalibrationMethod = "mse"
    percentile: Annotated[float, Meta(ge=90, le=100)] = 99.99
    """Of |x|, for method "percentile"."""
    smooth: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """How much of the activations' spread between channels is moved into the weights
    (SmoothQuant's alpha, https://arxiv.org/abs/2211.10438); 0 turns it off."""


class CalibrationReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the ranges were measured on; `sha256` is over the samples, in order."""

    data: str
    samples: int
    sha256: str
    method: CalibrationMethod


class QuantizedLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A layer in INT8 or FP8: its node, what it is, and the range of its input (|x| at most)."""

    name: str
    kind: LayerKind
    input_range: float


class QuantizationReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was quantized: the layers, how many were smoothed, and the part of the multiply-adds."""

    calibration: CalibrationReport
    layers: list[QuantizedLayer]
    smoothed: int
    macs: float
