"""Whether an array can stand for an input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sam_deploy.errors import InputError
from sam_deploy.runner import Array


def fitted(array: Array, like: Array, where: str, first: str) -> Array:
    """`array` in the type of `like`; the rest is as in `check_fits`."""
    check_fits(array.shape, array.dtype, like, where, first)
    return array.astype(like.dtype)


def check_fits(
    shape: tuple[int, ...], dtype: npt.DTypeLike, like: Array, where: str, first: str
) -> None:
    """Hold the shape and dtype of an array against `like`, whose dims it has but for the first,
    which is called `first`.

    Raises:
        InputError: another shape or kind; `where` says of what.
    """
    dtype = np.dtype(dtype)
    if shape[1:] != like.shape[1:] or len(shape) != like.ndim:
        expected = ", ".join([first, *map(str, like.shape[1:])])
        raise InputError(f"{where} has shape {shape}; expected ({expected}).")
    floats = like.dtype.kind == "f"  # integers would be pixels that nobody normalised
    if not np.can_cast(dtype, like.dtype, "same_kind") or floats != (dtype.kind == "f"):
        preprocessed = ", preprocessed as the model expects" if floats else ""
        raise InputError(f"{where} is {dtype}; expected {like.dtype}{preprocessed}.")
