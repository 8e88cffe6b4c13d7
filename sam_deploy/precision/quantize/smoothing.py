"""Smoothing: a channel that is larger than others is made smaller, and its weights larger.

    W x = (W diag(s)) (diag(1/s) x),   s_c = max|x_c|^a / max|W_c|^(1-a)

(SmoothQuant, https://arxiv.org/abs/2211.10438). 1/s goes into what makes x: the affine of a
LayerNorm or the weights of a layer, through whatever treats every channel alike. s is a power of
two, so that not a bit of any float changes but in its exponent, and no node is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sam_deploy.precision.quantize.layers import Layer, channel_axis
from sam_deploy.runner import Array, FloatArray

_MOST = 2.0**10  # of s: beyond it a channel is an accident of the data


@dataclass(frozen=True)
class _Part:
    """A weight and its axis of channels."""

    value: ir.Value
    axis: int


@dataclass(frozen=True)
class Smoothable:
    """An activation whose channels can be scaled: what makes it, and the layers that read it."""

    activation: ir.Value
    axis: int
    makers: list[_Part]
    readers: list[Layer]

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.activation.name or ""


def smoothable(layers: Sequence[Layer], chosen: Sequence[Layer]) -> list[Smoothable]:
    """The inputs of the layers `chosen` that can be smoothed; all their readers are `layers`."""
    by_activation: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        by_activation.setdefault(layer.activation, []).append(layer)
    wanted = dict.fromkeys(layer.activation for layer in chosen)
    found = []
    taken: set[ir.Value] = set()
    for activation in wanted:
        readers = by_activation[activation]
        rank = len(activation.shape or ())
        axes = {channel_axis(layer) % rank for layer in readers} if rank else set()
        if len(axes) != 1 or any(not _scalable(layer) for layer in readers):
            continue
        axis = axes.pop()
        makers = _makers(activation, axis, {layer.node for layer in readers})
        if makers is None or taken & {part.value for part in makers}:
            continue
        taken |= {part.value for part in makers}
        found.append(Smoothable(activation, axis, makers, readers))
    return found


def smooth(
    places: Sequence[Smoothable],
    chosen: Sequence[Layer],
    largest: Mapping[str, FloatArray],
    alpha: float,
) -> int:
    """Scale the channels at `places`, in place; how many of them changed.

    `largest` is max |x| of every channel, by the activation's name.
    """
    nodes = {layer.node for layer in chosen}
    changed = 0
    for place in places:
        weights = [_by_input(layer) for layer in place.readers if layer.node in nodes]
        scale = _scale(largest[place.name], np.max(weights, axis=0), alpha)
        if (scale == 1).all():
            continue
        for part in place.makers:
            _multiply(part.value, 1 / scale, part.axis)
        for layer in place.readers:
            _multiply(layer.weight, scale, _reading_axis(layer))
        changed += 1
    return changed


def _scale(x: FloatArray, w: FloatArray, alpha: float) -> FloatArray:
    """S of every channel, the nearest power of two; channels without values keep 1."""
    exponent = np.zeros(len(x))
    there = (x > 0) & (w > 0)
    exponent[there] = alpha * np.log2(x[there]) - (1 - alpha) * np.log2(w[there])
    # Only the ratios between channels matter: the middle one stays as it is.
    exponent[there] -= np.median(exponent[there]) if there.any() else 0.0
    scale: FloatArray = np.exp2(np.rint(np.clip(exponent, -np.log2(_MOST), np.log2(_MOST))))
    return scale


def _by_input(layer: Layer) -> FloatArray:
    """Max |w| of every input channel of a layer."""
    weight = np.abs(_numpy(layer.weight))
    axis = _reading_axis(layer)
    largest: FloatArray = weight.max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    return largest


def _reading_axis(layer: Layer) -> int:
    # A depthwise convolution has one input channel for every output channel.
    return layer.input_axis if layer.groups == 1 else layer.output_axis


def _scalable(layer: Layer) -> bool:
    if len(layer.weight.uses()) > 1:
        return False
    if layer.groups == 1:
        return True
    depthwise = _numpy(layer.weight).shape[:2] == (layer.groups, 1)
    return layer.node.op_type == "Conv" and depthwise


def _makers(value: ir.Value, axis: int, readers: set[ir.Node]) -> list[_Part] | None:
    """The weights that scale `value` along `axis`, or None where something else reads it too."""
    node, users = value.producer(), [user for user, _ in value.uses()]
    if node is None or value.is_graph_output() or set(users) - readers:
        return None
    if len(users) > len(readers):  # one of them reads it twice, as x * x does
        return None
    inputs = node.inputs
    if node.op_type == "Transpose":
        order = node.attributes.get("perm")
        last = len(value.shape or ()) - 1
        return _from(inputs[0], last - axis if order is None else order.as_ints()[axis], node)
    if node.op_type == "Reshape":
        before = _same_axis(inputs[0], value, axis)
        return None if before is None else _from(inputs[0], before, node)
    if node.op_type == "Mul":
        for factor in inputs:
            if factor is not None and _like(factor, value):
                found = _from(factor, axis, node)
                if found is not None:
                    return found
        return None
    return _own_parts(node, value, axis)


def _own_parts(node: ir.Node, value: ir.Value, axis: int) -> list[_Part] | None:
    """The weights of a LayerNorm or a layer that makes `value`, one set of numbers a channel."""
    shape = list(value.shape or ())
    last = len(shape) - 1
    if node.op_type == "LayerNormalization" and axis == last:
        attribute = node.attributes.get("axis")
        over_last = attribute is None or attribute.as_int() in (-1, last)
        return _parts(node, 0, shape[axis]) if over_last else None
    if node.op_type == "Conv" and axis == 1:
        return _parts(node, 0, shape[axis])
    if node.op_type == "Gemm" and axis == last:
        transposed = node.attributes.get("transB")
        outputs = 0 if transposed is not None and transposed.as_int() else 1
        return _parts(node, outputs, shape[axis])
    return None


def _parts(node: ir.Node, axis: int, channels: object) -> list[_Part] | None:
    """The weight, with `channels` along `axis`, and the bias; None where one cannot be scaled."""
    values = [value for value in node.inputs[1:] if value is not None]
    if any(v.const_value is None or len(v.uses()) > 1 for v in values) or not values:
        return None
    weight, *biases = values
    if _numpy(weight).shape[axis] != channels:  # one number for all of them
        return None
    if any(_numpy(bias).shape != (channels,) for bias in biases):
        return None
    return [_Part(weight, axis), *(_Part(bias, 0) for bias in biases)]


def _from(value: ir.Value | None, axis: int, reader: ir.Node) -> list[_Part] | None:
    return None if value is None else _makers(value, axis, {reader})


def _like(factor: ir.Value, value: ir.Value) -> bool:
    return factor.shape is not None and value.shape is not None and factor.shape == value.shape


def _same_axis(before: ir.Value | None, after: ir.Value, axis: int) -> int | None:
    """The axis of `before` that a Reshape leaves as `axis` of `after`: as much stands behind it."""
    if before is None or before.shape is None or after.shape is None:
        return None
    size, behind = after.shape[axis], _product(list(after.shape)[axis + 1 :])
    for place, candidate in enumerate(before.shape):
        same = isinstance(size, int) and candidate == size
        if same and behind is not None and behind == _product(list(before.shape)[place + 1 :]):
            return place
    return None


def _product(sizes: Sequence[object]) -> int | None:
    product = 1
    for size in sizes:
        if not isinstance(size, int):
            return None
        product *= size
    return product


def _multiply(value: ir.Value, scale: FloatArray, axis: int) -> None:
    array = _numpy(value)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    made = (array * scale.reshape(shape)).astype(array.dtype)
    value.const_value = ir.tensor(made, name=value.name)


def _numpy(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()
