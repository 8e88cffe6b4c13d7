"""How a model is quantized: what a recipe says of it, and what an export reports."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LayerKind = Literal["linear", "conv", "depthwise", "grouped", "first", "head"]
"""What a layer with weights is to the policy. "linear" is a MatMul, Gemm or 1x1 convolution,
"conv" another dense convolution, "first" the first layer on an input and "head" the last before an
output, whatever they are otherwise."""

QuantizationTarget = Literal["tensorrt", "cpu"]
"""What a quantized graph is laid out for. TensorRT wants Q/DQ before a layer, a CPU on both sides:
each runs the other's in floats, or not at all."""
TARGETS: dict[QuantizationTarget, str] = {
    "tensorrt": "TensorRT, FP16 beside them",
    "cpu": "CPUs, FP32 beside them",
}
CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse"]
SYNTHETIC = "synthetic"
"""What stands for a folder where built-in images are asked for."""


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What becomes INT8 (or FP8), and how its ranges are found.

    LayerNorm, softmax, GELU, the products of attention and additions have no weights and always
    stay in floats.
    """

    target: QuantizationTarget = "tensorrt"
    """What runs it: "tensorrt" has FP16 beside the quantized layers, "cpu" FP32."""
    kinds: list[LayerKind] | None = None
    """The kinds of layers that are quantized; without it the target's."""
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

    rounding: Literal["together", "nearest"] = "together"
    """Weights are rounded so that the errors of a layer's output cancel (GPTQ,
    https://arxiv.org/abs/2210.17323), or each to its nearest."""

    @property
    def taken_kinds(self) -> list[LayerKind]:
        """The kinds that are quantized: dense layers inside, for a CPU all but heads."""
        if self.kinds is not None:
            return self.kinds
        if self.target == "cpu":
            return ["linear", "conv", "depthwise", "grouped", "first"]
        return ["linear", "conv"]

    def __post_init__(self) -> None:
        """Refuse a path that is to be quantized and not.

        Raises:
            ValueError: naming it.
        """
        both = sorted(set(self.quantize) & set(self.keep))
        if both:
            raise ValueError(f"{', '.join(both)}: both under quantize and under keep")


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
    input_span: tuple[float, float] | None = None
    """The least and greatest input, where they are quantized as such; `output_span` the same."""
    output_span: tuple[float, float] | None = None


class GroupCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What it costs to quantize one group of layers and nothing else, against FP32.

    `macs` is the group's part of all multiply-adds. `kept` is whether a search left it in floats.
    """

    group: str
    layers: int
    macs: float
    relative_rms: float
    top1_agreement: float | None
    kept: bool = False


class SearchReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was asked of a search, and what the set that it chose costs.

    Both drops are points of top-1 agreement with FP32, of models without classes per cent of
    relative RMS, on `samples` of the calibration samples.
    """

    max_drop: float
    drop: float
    samples: int


class QuantizationReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was quantized: the layers, how many were smoothed, and the part of the multiply-adds."""

    target: QuantizationTarget = "tensorrt"
    calibration: CalibrationReport
    layers: list[QuantizedLayer]
    smoothed: int
    macs: float
    sensitivity: list[GroupCost] = []
    search: SearchReport | None = None
