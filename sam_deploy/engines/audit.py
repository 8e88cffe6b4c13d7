"""The audit: what the parsed network computes in, against what was asked, before it is built.

The ONNX file was audited when it was written; a parser may still fold, cast or leave out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from sam_deploy.errors import PrecisionError
from sam_deploy.island_names import island_of
from sam_deploy.manifest import PrecisionReport
from sam_deploy.recipe import FloatPrecision, Precision

_DTYPE: dict[FloatPrecision, str] = {"fp32": "FLOAT", "fp16": "HALF"}
_FLOATS = {"FLOAT", "HALF", "BF16"}
_QUANTIZED: dict[Precision, str] = {"int8": "INT8", "fp8": "FP8"}
_HEAVY = {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM"}
_ONNX_NAME = re.compile(r"\[ONNX Layer: (.*?)\]")
_SHOWN = 10


class _Heavy(NamedTuple):
    """A layer that multiplies matrices: its ONNX node, and its types.

    `quantized` has for each operand the type that it is dequantized from, or None.
    """

    node: str
    floats: set[str]
    quantized: list[str | None]


def audit_network(network: Any, precision: PrecisionReport) -> None:
    """Hold the parsed `network` against `precision`, which says what the graph is.

    Convolutions and matrix products compute in the type asked for, outside islands; the listed
    layers take both their operands from INT8 (FP8), and no other does; inputs and outputs are
    `io_dtype`.

    Raises:
        PrecisionError: saying which layer is what instead.
    """
    problems = [*_ends(network, precision), *_layers(network, precision)]
    if problems:
        shown = "\n  ".join(problems[:_SHOWN])
        raise PrecisionError(
            f"the network that TensorRT would build is not {precision.precision} as it was asked "
            f"for ({len(problems)} findings):\n  {shown}\n"
            "Export again with this sam-deploy; if it persists, leave the engine out with --engine."
        )


def _ends(network: Any, precision: PrecisionReport) -> Iterator[str]:
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    ends += [network.get_output(i) for i in range(network.num_outputs)]
    expected = _DTYPE[precision.io_dtype]
    for tensor in ends:
        dtype = tensor.dtype.name
        if dtype in _FLOATS and dtype != expected:
            yield f"{tensor.name} is {dtype}, expected {expected}"


def _layers(network: Any, precision: PrecisionReport) -> Iterator[str]:
    asked = "FLOAT" if precision.precision == "fp32" else "HALF"
    low = _QUANTIZED.get(precision.precision)
    quantization = precision.quantization
    listed = {layer.name for layer in quantization.layers} if quantization else set()
    missing = set(listed)
    for layer in _heavy_layers(network):
        expected = "FLOAT" if island_of(layer.node, precision.islands) else asked
        missing.discard(layer.node)
        if layer.floats != {expected}:
            found = " and ".join(sorted(layer.floats)) or "no float"
            yield f"{layer.node} computes in {found}, expected {expected}"
        if layer.node in listed and layer.quantized != [low, low]:
            shown = " and ".join(dtype or "floats" for dtype in layer.quantized)
            yield f"{layer.node} takes its operands from {shown}, expected {low} for both"
        elif layer.node not in listed and any(layer.quantized):
            yield f"{layer.node} is quantized and is not among the layers that should be"
    for name in sorted(missing):
        yield f"{name} should be {low}, and no convolution or matrix product has that name"


def _heavy_layers(network: Any) -> Iterator[_Heavy]:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    for layer in layers:
        if layer.type.name not in _HEAVY:
            continue
        inputs = [t for i in range(layer.num_inputs) if (t := layer.get_input(i)) is not None]
        # A convolution without quantization holds its weights itself: no second input.
        dtypes = {tensor.dtype.name for tensor in [*inputs, layer.get_output(0)]}
        if dtypes & _FLOATS:  # others compute sizes and indices
            operands = [_dequantized_from(tensor, makers) for tensor in inputs[:2]]
            operands += [None] * (2 - len(operands))
            yield _Heavy(_onnx_name(layer), dtypes, operands)


def _dequantized_from(tensor: Any, makers: dict[str, Any]) -> str | None:
    maker = makers.get(tensor.name)
    # The parser brings operands into shape for a product by transposing and broadcasting.
    while maker is not None and maker.type.name in ("SHUFFLE", "SQUEEZE", "UNSQUEEZE"):
        maker = makers.get(maker.get_input(0).name)
    if maker is None or maker.type.name != "DEQUANTIZE":
        return None
    return str(maker.get_input(0).dtype.name)


def _onnx_name(layer: Any) -> str:
    """The node that the layer comes from: layers that would share a name are renamed."""
    found = _ONNX_NAME.search(layer.metadata)
    return found[1] if found else str(layer.name)
