"""The inputs that a layer's weights multiply, a row each: one place of the activation, or a window
of a convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sam_deploy.precision.quantize.layers import Layer, channel_axis
from sam_deploy.runner import Array

_MOST_INPUTS = 4096  # their products are as many squared


class Places(NamedTuple):
    """How a layer reads its activation: one place at a time, or in windows.

    `axis` is that of the activation's channels, `pads` are top, left, bottom, right.
    """

    axis: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def rows(self, x: Array, most: int) -> npt.NDArray[np.float32]:
        """Of the activation `x` the rows (places, inputs), `most` at most and evenly spread; the
        inputs are in the order of the weight's axes behind that of its outputs.
        """
        if self == Places(self.axis):
            places = np.moveaxis(x, self.axis, -1).reshape(-1, x.shape[self.axis])
            return places[_spread(len(places), most)].astype(np.float32)
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=(2, 3))
        down, across = self.strides
        by_place = windows[:, :, ::down, ::across].transpose(0, 2, 3, 1, 4, 5)
        count = int(np.prod(by_place.shape[:3]))
        taken = np.unravel_index(_spread(count, most), by_place.shape[:3])
        return by_place[taken].reshape(len(taken[0]), -1).astype(np.float32)


def places_of(layer: Layer) -> Places | None:
    """How `layer` reads its activation; None where its weights are no matrix over such rows."""
    assert layer.weight.const_value is not None
    shape = list(layer.weight.const_value.numpy().shape)
    if layer.groups > 1 or int(np.prod(shape)) // shape[layer.output_axis] > _MOST_INPUTS:
        return None
    axis = channel_axis(layer)
    if layer.node.op_type != "Conv":
        return Places(axis) if all(size == 1 for size in shape[2:]) else None
    kernel = tuple(shape[2:])
    strides, pads = _ints(layer.node, "strides", 1, 2), _ints(layer.node, "pads", 0, 4)
    pads_itself = layer.node.attributes.get("auto_pad")
    if pads_itself is not None and pads_itself.as_string() != "NOTSET":
        return None
    if len(kernel) != 2 or set(_ints(layer.node, "dilations", 1, 2)) != {1}:
        return None
    return Places(axis, (kernel[0], kernel[1]), (strides[0], strides[1]), _four(pads))


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    return np.arange(0, count, -(-count // most))


def _ints(node: ir.Node, name: str, default: int, count: int) -> list[int]:
    attribute = node.attributes.get(name)
    return [default] * count if attribute is None else list(attribute.as_ints())


def _four(pads: list[int]) -> tuple[int, int, int, int]:
    top, left, bottom, right = pads
    return top, left, bottom, right
