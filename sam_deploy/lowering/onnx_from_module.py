"""An ONNX graph from a rewritten module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import nn

from sam_deploy.errors import InputError
from sam_deploy.lowering.batch import BATCH, any_batch, quiet, with_batch
from sam_deploy.lowering.names import name_by_module
from sam_deploy.lowering.tidy import tidy
from sam_deploy.reference.user_code import line_of

OPSET = 20  # the first with Gelu; every TensorRT since 10 and TensorRT-RTX parse it
_TAKEN_FOR_ZERO = 1e-8  # by the rules of onnxscript's rewriter
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
                optimize=False,  # its rewriter takes x + 1e-8 for x
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(_refusal(error)) from error
    assert program is not None
    model = program.model
    _optimize(model)
    if len(model.graph.outputs) != len(output_names):
        raise InputError(
            f"the graph has {len(model.graph.outputs)} outputs for {len(output_names)} names "
            f"({', '.join(output_names)}). Return tensors only."
        )
    if batch is None:
        _check_free(model.graph)
        _name_batch(model.graph)
    tidy(model)
    _name_ends(model.graph, input_names, output_names)
    name_by_module(model.graph)
    model.graph.name = type(module).__name__
    model.producer_name, model.producer_version = "sam-deploy", ""
    _strip_metadata(model)
    return model


def _optimize(model: ir.Model) -> None:
    """What the exporter would have done, but for its taking x + 1e-8 for x: epsilons stay."""
    with quiet():
        onnxscript.optimizer.fold_constants(model)
        lift = ir.passes.common.LiftConstantsToInitializersPass(
            lift_all_constants=True, size_limit=0
        )
        lift(model)
        weights = (v.const_value for v in model.graph.initializers.values() if v.const_value)
        numbers = [w.numpy() for w in weights if w.size == 1 and w.dtype.is_floating_point()]
        if not any(0 < abs(float(x.reshape(()))) <= _TAKEN_FOR_ZERO for x in numbers):
            onnxscript.optimizer.optimize_ir(model)


def _name_ends(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """An output that is an input, a weight or another output gets a node of its own; a weight that
    is called as an input or output gives its name up.
    """
    for index, (value, name) in enumerate(zip(graph.outputs, outputs, strict=True)):
        first = value not in graph.outputs[:index]
        if value.producer() is not None and first:
            value.name = name
        else:
            copied = ir.node("Identity", inputs=[value])
            made = copied.outputs[0]
            made.name, made.shape = name, value.shape
            if value.dtype is not None:
                made.dtype = value.dtype
            graph.append(copied)
            graph.outputs[index] = made
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    for name in [name for name in graph.initializers if name in {*inputs, *outputs}]:
        weight = graph.initializers.pop(name)
        weight.name = f"{name}.weight"
        graph.register_initializer(weight)


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
    for value in values:
        if value.shape is not None:  # a new one: values may share one, or have one that is frozen
            value.shape = ir.Shape(
                traced.sub(BATCH, size.value)  # also in products: 49*s77
                if isinstance(size, ir.SymbolicDim) and size.value
                else size
                for size in value.shape
            )


def _strip_metadata(model: ir.Model) -> None:
    # The exporter records stack traces and file names of the machine that ran it.
    ir.passes.common.ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None
