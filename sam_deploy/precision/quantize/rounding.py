"""Weights rounded so that the errors of a layer's output cancel, not those of each weight.

Column by column, what rounding one input's weights adds to the output is taken back from the
weights of the inputs that are still to come, as far as the inputs go together (GPTQ: Frantar et
al., https://arxiv.org/abs/2210.17323, equations 2 and 3).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sam_deploy.precision.quantize.grids import Grid
from sam_deploy.runner import Array

_DAMPING = 0.01  # of the mean second moment, so that inputs that never vary cause no trouble
_BLOCK = 128  # columns whose corrections to the rest are made at once
_Floats = npt.NDArray[np.float64]


def rounded_together(weight: _Floats, scale: _Floats, moments: _Floats, grid: Grid) -> Array:
    """`weight` (outputs, inputs) in `grid`, in units of `scale` (outputs).

    `moments` (inputs, inputs) is the mean of x x' over the layer's inputs x.
    """
    columns = weight.shape[1]
    left = weight.copy()
    damped = moments + np.eye(columns) * max(_DAMPING * float(np.trace(moments)) / columns, 1e-12)
    order = np.argsort(-np.diag(damped))  # the inputs that matter most while most can be made up
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = left[:, order]
    made = np.empty(weight.shape, grid.quantized(np.zeros(())).dtype)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.empty((weight.shape[0], stop - start))
        for column in range(start, stop):
            units = grid.quantized(left[:, column] / scale)
            made[:, order[column]] = units
            error = (left[:, column] - units.astype(np.float64) * scale) / upper[column, column]
            left[:, column:stop] -= np.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return made
