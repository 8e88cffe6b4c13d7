"""The numbers that INT8 and FP8 have, symmetric around 0, and those of UINT8."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from sam_deploy.runner import Array, FloatArray


@dataclass(frozen=True)
class Grid:
    """A type that layers are quantized to. `largest` is its largest number."""

    name: str
    dtype: ir.DataType
    largest: float

    def quantized(self, x: Array) -> Array:
        """`x`, in units of the scale, as this type: rounded to nearest, saturated."""
        clipped = np.clip(x, -self.largest, self.largest)
        if self.dtype != ir.DataType.FLOAT8E4M3FN:
            whole: Array = np.rint(clipped).astype(self.dtype.numpy())
            return whole
        rounded: Array = clipped.astype(np.float32).astype(ml_dtypes.float8_e4m3fn)
        return rounded

    def rounded(self, x: FloatArray) -> FloatArray:
        """`x`, in units of the scale, as this type holds it."""
        on_grid: FloatArray = self.quantized(x).astype(np.float64)
        return on_grid


# -128 is left out: a symmetric range has the same numbers on both sides.
INT8 = Grid("int8", ir.DataType.INT8, 127.0)
# Processors without VNNI add two products of UINT8 and INT8 in 16 bits, and saturate in silence:
# 2 * 255 * 64 is what they hold.
INT8_BY_UINT8 = Grid("int8", ir.DataType.INT8, 64.0)
UINT8 = Grid("uint8", ir.DataType.UINT8, 255.0)
FP8 = Grid("fp8", ir.DataType.FLOAT8E4M3FN, 448.0)
