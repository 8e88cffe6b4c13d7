"""A layer's weights in INT8 or FP8: one scale an output channel, rounded alone or together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_deploy.precision.quantize.grids import Grid
from sam_deploy.precision.quantize.layers import Layer
from sam_deploy.precision.quantize.rounding import rounded_together
from sam_deploy.runner import Array, FloatArray

_LEAST = float(np.finfo(np.float16).smallest_subnormal)


@dataclass(frozen=True)
class QuantizedWeight:
    """`units` in the grid's type and the weight's own shape; `scale` (outputs), float32."""

    grid: Grid
    units: Array
    scale: FloatArray


def quantized_weight(
    layer: Layer,
    grid: Grid,
    moments: npt.NDArray[np.float64] | None = None,
    least: FloatArray | float = 0.0,
) -> QuantizedWeight:
    """The weight of `layer` in `grid`.

    With `moments`, the mean of x x' over the rows x that it reads, it is rounded so that the
    errors of its output cancel. No scale is below `least`, of every output or one for all.
    """
    assert layer.weight.const_value is not None
    weight = layer.weight.const_value.numpy().astype(np.float64)
    rows = np.moveaxis(weight, layer.output_axis, 0).reshape(weight.shape[layer.output_axis], -1)
    scale = fp16_scale(np.maximum(np.abs(rows).max(axis=1), least * grid.largest), grid)
    if moments is not None:
        units = rounded_together(rows, scale.astype(np.float64), moments, grid)
    else:
        units = grid.quantized(rows / scale[:, None])
    first = np.moveaxis(weight, layer.output_axis, 0).shape
    shaped = np.moveaxis(units.reshape(first), 0, layer.output_axis)
    return QuantizedWeight(grid, np.ascontiguousarray(shaped), scale)


def fp16_scale(largest: FloatArray | float, grid: Grid) -> FloatArray:
    """The scale that makes `largest` the grid's largest number, as FP16 holds it, rounded up:
    the graph's floats become FP16 later, and the numbers are to be those that were rounded here.
    """
    exact = np.maximum(np.asarray(largest, np.float64) / grid.largest, _LEAST)
    half = exact.astype(np.float16)
    low = half.astype(np.float64) < exact
    up = np.nextafter(half, np.float16(np.inf))
    scale: FloatArray = np.where(low, up, half).astype(np.float32)
    return scale
