"""The layers of a graph that have weights: what could be quantized, and what kind each is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from sam_deploy.quantization import LayerKind

_HANDING_ON = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Softmax", "Squeeze", "Transpose"}
)
_IMAGE_CHANNELS = 4  # a first layer on as many reads an image: it gains nothing, and costs most


@dataclass(frozen=True)
class Layer:
    """A node with weights. `output_axis` and `input_axis` are the weights' own."""

    node: ir.Node
    kind: LayerKind
    activation: ir.Value
    weight: ir.Value
    output_axis: int
    input_axis: int

    @property
    def name(self) -> str:
        """The node's name, `<module path>/<op>`."""
        return self.node.name or ""

    @property
    def input(self) -> str:
        """The name of its activation."""
        return self.activation.name or ""

    @property
    def output(self) -> ir.Value:
        """What it makes."""
        return self.node.outputs[0]

    @property
    def path(self) -> str:
        """The path of its PyTorch module."""
        return self.name.rpartition("/")[0]

    @property
    def groups(self) -> int:
        """How many groups a convolution has; 1 for every other layer."""
        return _integer(self.node, "group", 1)


def weighted_layers(graph: ir.Graph) -> list[Layer]:
    """Every convolution, Gemm and MatMul by an initializer, in the order of the graph."""
    return [layer for node in graph if (layer := _layer(graph, node)) is not None]


def channel_axis(layer: Layer) -> int:
    """The activation's axis of input channels, from the front (Conv) or the end (-1)."""
    return 1 if layer.node.op_type in ("Conv", "ConvTranspose") else -1


def _layer(graph: ir.Graph, node: ir.Node) -> Layer | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    if activation is None or weight is None or weight.const_value is None:
        return None
    if activation.dtype != ir.DataType.FLOAT or activation.const_value is not None:
        return None
    if _flag(node, "transA") or (node.op_type == "MatMul" and len(weight.shape or ()) != 2):
        return None
    output_axis, input_axis = _axes(node)
    return Layer(node, _kind(graph, node, activation), activation, weight, output_axis, input_axis)


def _axes(node: ir.Node) -> tuple[int, int]:
    if node.op_type == "Conv" or (node.op_type == "Gemm" and _flag(node, "transB")):
        return 0, 1
    return 1, 0  # MatMul, Gemm and ConvTranspose have (inputs, outputs, ...)


def _kind(graph: ir.Graph, node: ir.Node, activation: ir.Value) -> LayerKind:
    if _reads_image(activation):
        return "first"
    if any(value in graph.outputs for value in _handed_on(node.outputs[0])):
        return "head"
    if node.op_type in ("Gemm", "MatMul"):
        return "linear"
    groups = _integer(node, "group", 1)
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    if groups > 1:
        return "depthwise" if weight.shape[1] == 1 else "grouped"
    return "linear" if all(size == 1 for size in list(weight.shape)[2:]) else "conv"


def _reads_image(value: ir.Value) -> bool:
    """Whether `value` is an input with an image's channels, or such an input in another type."""
    while (producer := value.producer()) is not None:
        first = producer.inputs[0] if producer.op_type in ("Cast", "Identity") else None
        if first is None:
            return False
        value = first
    shape = value.shape
    if shape is None or len(shape) != 4 or value.const_value is not None:
        return False
    channels = shape[1]
    return isinstance(channels, int) and channels <= _IMAGE_CHANNELS


def _handed_on(value: ir.Value) -> Iterator[ir.Value]:
    yield value
    for user, _ in value.uses():
        if user.op_type in _HANDING_ON:
            yield from _handed_on(user.outputs[0])


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _flag(node: ir.Node, name: str) -> bool:
    return bool(_integer(node, name, 0))
