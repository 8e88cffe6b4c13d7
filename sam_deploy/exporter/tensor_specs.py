"""Inputs and outputs as the manifest declares them, read from the FP32 graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import onnx_ir as ir

from sam_deploy.errors import InputError
from sam_deploy.manifest import TensorDtype, TensorSpec
from sam_deploy.recipe import FloatPrecision


def tensor_specs(values: Sequence[ir.Value], io_dtype: FloatPrecision) -> list[TensorSpec]:
    """One for each of a graph's inputs or outputs; FP32 ones become `io_dtype`.

    Raises:
        InputError: a dtype that no bundle declares.
    """
    return [_spec(value, io_dtype) for value in values]


def _spec(value: ir.Value, io_dtype: FloatPrecision) -> TensorSpec:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    dtype = str(value.dtype.numpy())
    if dtype not in get_args(TensorDtype):
        raise InputError(f"{value.name} is {dtype}; expected one of {get_args(TensorDtype)}.")
    if dtype == "float32" and io_dtype == "fp16":
        dtype = "float16"
    dims = [size if isinstance(size, int) else str(size.value) for size in value.shape]
    return TensorSpec(name=value.name, dtype=dtype, dims=dims)  # type: ignore[arg-type]
