"""An ONNX graph from a rewritten module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from sam_deploy.errors import InputError
from sam_deploy.lowering.batch import BATCH, any_batch, quiet, with_batch
from sam_deploy.lowering.names import name_by_module
from sam_deploy.lowering.tidy import tidy
from sam_deploy.lowering.user_code import line_of

OPSET = 20  # the first with Gelu; every TensorRT since 10 and TensorRT-RTX parse it
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

    Raises:
        InputError: the exporter cannot take the module, or gives another number of outputs than
            there are names; with the Python file and line where it is known.
    """
    size = _TRACED_BATCH if batch is None else batch
    inputs = with_batch(example_inputs, size)
    dynamic = any_batch(inputs) if batch is None else None
    try:
        with quiet(), torch.no_grad():
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
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(_refusal(error)) from error
    assert program is not None
    model = program.model
    if len(model.graph.outputs) != len(output_names):
        raise InputError(
            f"the graph has {len(model.graph.outputs)} outputs for {len(output_names)} names "
            f"({', '.join(output_names)}). Return each tensor once."
        )
    if batch is None:
        _check_free(model.graph)
        _name_batch(model.graph)
    tidy(model)
    name_by_module(model.graph)
    model.graph.name = type(module).__name__
    model.producer_name, model.producer_version = "sam-deploy", ""
    _strip_metadata(model)
    return model


def _refusal(error: Exception) -> str:
    cause = error.__cause__ or error
    first = next((line for line in str(cause).splitlines() if line.strip()), "")
    line = line_of(error)
    return (
        f"PyTorch's exporter cannot take the network{f', at {line}' if line else ''}: "
        f"{type(cause).__name__}: {first.strip()}"
    )


def _check_free(graph: ir.Graph) -> None:
    """The exporter makes a batch that the network fixes a number, and says nothing."""
    for value in graph.inputs:
        if value.shape is not None and isinstance(value.shape[0], int):
            raise InputError(
                f"the network works at the batch size of its example inputs only: the exporter "
                f"gives {value.name} the shape {tuple(value.shape)}. Export with a fixed batch."
            )


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
