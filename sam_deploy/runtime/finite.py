"""Inputs without NaN and infinity, where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.runner import Array


def check_finite(inputs: Mapping[str, Array]) -> None:
    """Refuse floats that are none; arrays on a GPU are not looked at.

    Raises:
        InputError: naming the input and the first row with NaN or infinity in it.
    """
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            continue
        if not np.isfinite(array).all():
            rows = ~np.isfinite(array).reshape(len(array), -1).all(axis=1) if array.ndim else [True]
            raise InputError(
                f"input {name} has NaN or infinity, first in row {int(np.argmax(rows))}; expected "
                "finite values. Look at what made it, or load without refuse_nan."
            )
