"""The batch of example inputs, and PyTorch's exporter kept quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

BATCH = "batch"  # the name of the dynamic dimension


def with_batch(inputs: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    """`inputs` with the first row of each tensor `size` times; what is no tensor stays."""
    return tuple(
        x[:1].expand(size, *x.shape[1:]).contiguous() if isinstance(x, Tensor) else x
        for x in inputs
    )


def any_batch(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The `dynamic_shapes` under which the tensors' first dimension is one free size."""
    shared = torch.export.Dim(BATCH)
    return tuple({0: shared} if isinstance(x, Tensor) else None for x in inputs)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter's notes about itself (torchvision missing, pytree deprecations) are no news."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "torch.fx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            for note in ("different number of inputs", "The axis name: batch will not be used"):
                warnings.filterwarnings("ignore", message=f".*{note}.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
