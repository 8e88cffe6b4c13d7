"""The scales of quantized inputs, held against the ranges that calibration found.

A wrong scale hides among the errors of quantization: half of one costs less than INT8 itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sam_deploy.errors import CheckFailed
from sam_deploy.quantization import QuantizationReport


def check_scales(model: Any, quantization: QuantizationReport) -> None:
    """Hold the ONNX `model`, which was audited, against the report.

    Raises:
        CheckFailed: a layer's input has another scale than its range gives.
    """
    from onnx import numpy_helper

    from sam_deploy.precision.quantize.grids import FP8, INT8
    from sam_deploy.precision.quantize.weights import fp16_scale

    weights = {weight.name: weight for weight in model.graph.initializer}
    reads = {node.name: node.input[0] for node in model.graph.node if node.input}
    makers = {name: node for node in model.graph.node for name in node.output}
    wrong = []
    for layer in quantization.layers:
        scale, zero = (weights[name] for name in makers[reads[layer.name]].input[1:3])
        grid = INT8 if zero.data_type == INT8.dtype.value else FP8
        found, expected = numpy_helper.to_array(scale), fp16_scale(layer.input_range, grid)
        if not np.array_equal(found, expected):
            wrong.append(f"{layer.name} has the scale {found}, its range gives {expected}")
    if wrong:
        raise CheckFailed(f"{'; '.join(wrong[:3])} ({len(wrong)} layers)")
