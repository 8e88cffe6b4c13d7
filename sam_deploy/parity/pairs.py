"""The outputs of both sides, as declared and paired, or the reason why they cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.runner import Array, Arrays


def paired(
    outputs: Sequence[TensorSpec], actual: Arrays, expected: Arrays, size: int
) -> list[tuple[Array, Array]]:
    """The artefact's and the reference's array for each of `outputs`, for a batch of `size`.

    Raises:
        CheckFailed: an output is missing or too many, has a shape or dtype that is not declared,
            or holds NaN or infinity, on either side.
    """
    pairs = [_pair(output, actual, expected, size) for output in outputs]
    declared = {output.name for output in outputs}
    for side, given in (("the artefact", actual), ("the reference", expected)):
        extra = sorted(set(given) - declared)
        if extra:
            raise CheckFailed(f"{side} has undeclared outputs {extra}")
    return pairs


def _pair(output: TensorSpec, actual: Arrays, expected: Arrays, size: int) -> tuple[Array, Array]:
    where = f"output {output.name}"
    if output.name not in actual:
        raise CheckFailed(f"{where}: missing; the artefact gives {sorted(actual)}")
    if output.name not in expected:
        raise CheckFailed(f"{where}: the reference does not have it")
    if actual[output.name].dtype != np.dtype(output.dtype):
        raise CheckFailed(f"{where}: {actual[output.name].dtype}, expected {output.dtype}")
    a, r = actual[output.name], expected[output.name]
    for side, array in (("the artefact", a), ("the reference", r)):
        if not _fits(array.shape, output, size):
            declared = tuple(size if dim == "batch" else dim for dim in output.dims)
            raise CheckFailed(f"{where}: {side} gives shape {array.shape}, declared is {declared}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckFailed(f"{where}: {side} holds NaN or infinity")
    if a.shape != r.shape:
        raise CheckFailed(f"{where}: shape {a.shape}, the reference's is {r.shape}")
    return a, r


def _fits(shape: tuple[int, ...], output: TensorSpec, size: int) -> bool:
    """Whether `shape` is as declared; a free size other than the batch may be any."""
    return len(shape) == len(output.dims) and all(
        actual == (size if dim == "batch" else dim) or (dim != "batch" and isinstance(dim, str))
        for actual, dim in zip(shape, output.dims, strict=True)
    )
