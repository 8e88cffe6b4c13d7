"""The scales of what is quantized, held against the ranges that calibration found.

A wrong scale hides among the errors of quantization: half of one costs less than INT8 itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sam_deploy.errors import CheckFailed
from sam_deploy.quantization import QuantizationReport, QuantizedLayer


def check_scales(model: Any, quantization: QuantizationReport) -> None:
    """Hold the ONNX `model`, which was audited, against the report.

    Raises:
        CheckFailed: a layer's input or output has another scale or zero point than its range gives.
    """
    from onnx import numpy_helper

    weights = {w.name: w for w in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    wrong = []
    for layer in quantization.layers:
        node = nodes[layer.name]
        pairs = [("input", makers[node.input[0]])]
        if layer.output_span is not None and node.output[0] in readers:
            pairs.append(("output", readers[node.output[0]]))
        for place, pair in pairs:
            found = [numpy_helper.to_array(weights[name]) for name in pair.input[1:3]]
            for what, one, expected in zip(
                ("scale", "zero point"), found, _expected(layer, place, found[1]), strict=True
            ):
                if not np.array_equal(one, expected):
                    wrong.append(
                        f"{layer.name} has the {what} {one} for its {place}, whose range gives "
                        f"{expected}"
                    )
    if wrong:
        raise CheckFailed(f"{'; '.join(wrong[:3])} ({len(wrong)} findings)")


def _expected(layer: QuantizedLayer, place: str, zero: Any) -> tuple[Any, Any]:
    from sam_deploy.precision.quantize import FP8, INT8, Span
    from sam_deploy.precision.quantize.weights import fp16_scale

    spans = {"input": layer.input_span, "output": layer.output_span}
    range_ = spans[place]
    if range_ is not None:
        return Span(*range_).uint8()
    grid = INT8 if zero.dtype == np.int8 else FP8
    return fp16_scale(layer.input_range, grid), np.zeros_like(zero)
