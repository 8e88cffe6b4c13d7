"""An ONNX graph from a rewritten module."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from sam_deploy.lowering.names import name_by_module
from sam_deploy.lowering.tidy import tidy

OPSET = 20  # the first with Gelu; every TensorRT since 10 and TensorRT-RTX parse it
BATCH = "batch"  # the name of the dynamic dimension
_TRACED_BATCH = 2  # a batch of 1 would be taken for a constant


def onnx_from_module(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    batch: int | None = None,
) -> ir.Model:
    """`module` as an ONNX model in FP32 whose nodes carry the paths of their PyTorch modules.

    `example_inputs` are positional; tensors have the batch in dimension 0 and give every other
    size, anything else (an H, a W) becomes a constant. `batch` None leaves the batch dynamic
    under the name "batch", a number fixes it. Weights stay in memory; nothing is written.
    """
    size = _TRACED_BATCH if batch is None else batch
    inputs = tuple(_with_batch(x, size) for x in example_inputs)
    dynamic = None
    if batch is None:
        shared = torch.export.Dim(BATCH)
        dynamic = tuple({0: shared} if isinstance(x, Tensor) else None for x in inputs)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None
    model = program.model
    if batch is None:
        _name_batch(model.graph)
    tidy(model)
    name_by_module(model.graph)
    model.graph.name = type(module).__name__
    model.producer_name, model.producer_version = "sam-deploy", ""
    _strip_metadata(model)
    return model


def _with_batch(x: Any, size: int) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x[:1].expand(size, *x.shape[1:]).contiguous()


def _name_batch(graph: ir.Graph) -> None:
    # The exporter leaves the symbol it traced with (s77) where an input is not a tensor.
    first = next(shape for value in graph.inputs if (shape := value.shape) is not None)
    traced = re.compile(rf"\b{first[0]}\b")
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for shape in (value.shape for value in values if value.shape is not None):
        for axis, size in enumerate(shape):
            if isinstance(size, ir.SymbolicDim) and size.value:
                shape[axis] = traced.sub(BATCH, size.value)  # also in products: 49*s77


def _strip_metadata(model: ir.Model) -> None:
    # The exporter records stack traces and file names of the machine that ran it.
    ir.passes.common.ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes about itself (torchvision missing, pytree deprecations) are no news."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*different number of inputs.*")
            yield
    finally:
        logger.setLevel(level)
