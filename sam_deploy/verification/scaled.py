"""Values that INT8 and FP8 scale channel by channel: the same information, but other numbers."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from sam_deploy.precision.quantize import layers_to_quantize, smoothable, weighted_layers
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import QUANTIZED, Recipe


def scaled_values(graph: ir.Model, recipe: Recipe) -> set[str]:
    """The names of the values between what smoothing makes smaller and what it makes larger.

    `graph` is FP32, before smoothing.
    """
    policy = recipe.quantization or Quantization()
    if recipe.precision not in QUANTIZED or not policy.smooth:
        return set()
    layers = weighted_layers(graph.graph)
    # what a search for --max-drop added to `keep` had been smoothed by then
    everything = msgspec.structs.replace(policy, keep=[])
    found: set[str] = set()
    for layer in layers_to_quantize(layers, everything, recipe.islands):
        for place in smoothable(layers, [layer]):
            readers = {reader.node for reader in place.readers}
            waiting = [user for part in place.makers for user, _ in part.value.uses()]
            while waiting:
                node = waiting.pop()
                for value in node.outputs:
                    found.add(value.name or "")
                    waiting += [user for user, _ in value.uses() if user not in readers]
    return found
