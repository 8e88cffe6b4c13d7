"""What is exported: an eager FP32 model, its inputs, and what is known of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sam_deploy.manifest import ModelInfo, WeightsInfo
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import Island
from sam_deploy.reference.outputs import named_outputs
from sam_deploy.runner import Array, Arrays


@dataclass(frozen=True)
class Subject:
    """The reference. `example_inputs` are positional: tensors with the batch first, or constants.

    `input_names` are those of the tensors, in order. `class_names` has as many as there are
    classes, or none. `own` is whether it is a network of the user's.
    """

    module: nn.Module
    example_inputs: tuple[Any, ...]
    input_names: list[str]
    output_names: list[str]
    info: ModelInfo
    weights: WeightsInfo
    preprocessing: Preprocessing | None
    class_names: list[str]
    islands: list[Island]
    own: bool = False

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """The eager FP32 outputs for a batch, both by name."""
        given = iter(self.input_names)
        positional = [
            torch.from_numpy(inputs[next(given)].copy()) if isinstance(x, Tensor) else x
            for x in self.example_inputs
        ]
        with torch.no_grad():
            return named_outputs(self.module(*positional), self.output_names)

    def examples(self) -> Arrays:
        """The example inputs that are tensors, by name."""
        tensors = [x.numpy() for x in self.example_inputs if isinstance(x, Tensor)]
        return dict(zip(self.input_names, tensors, strict=True))
