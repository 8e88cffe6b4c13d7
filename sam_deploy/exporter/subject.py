"""What is exported: the eager FP32 model of a recipe, its inputs, and what is known of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sam_deploy.errors import InputError
from sam_deploy.manifest import ModelInfo, TensorSpec, WeightsInfo
from sam_deploy.models import SAM, SMT, create_model
from sam_deploy.models.fit import load_model
from sam_deploy.models.weights_hash import weights_sha256
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import Island, Recipe, SamShape

SEED = 0  # of random weights
_SOFTMAX = Island(
    match="head.1", reason="softmax: probabilities of many classes lie below FP16's resolution"
)


@dataclass(frozen=True)
class Subject:
    """The reference. `example_inputs` are positional: the input at batch 1, then constants."""

    module: nn.Module
    example_inputs: tuple[Any, ...]
    output_names: list[str]
    info: ModelInfo
    weights: WeightsInfo
    preprocessing: Preprocessing | None
    islands: list[Island]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of the input without its batch."""
        return tuple(self.example_inputs[0].shape[1:])

    def run(self, x: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.floating[Any]]]:
        """The eager FP32 outputs for a batch, by name."""
        with torch.no_grad():
            outputs = self.module(torch.from_numpy(x), *self.example_inputs[1:])
        listed = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        return {n: y.numpy() for n, y in zip(self.output_names, listed, strict=True)}

    def tensor_specs(self, recipe: Recipe) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Inputs and outputs as the manifest declares them."""
        dtype = "float16" if recipe.io_dtype == "fp16" else "float32"
        batch: int | str = recipe.batch or "batch"
        example = self.run(self.example_inputs[0].numpy())

        def spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
            return TensorSpec(name=name, dtype=dtype, dims=[batch, *shape])  # type: ignore[arg-type]

        inputs = [spec("input", self.sample_shape)]
        return inputs, [spec(name, array.shape[1:]) for name, array in example.items()]


def subject_from_recipe(recipe: Recipe) -> Subject:
    """The eager model that `recipe` describes, with its checkpoint's or seeded random weights.

    Raises:
        InputError: the checkpoint or the options do not fit the model.
    """
    module, weights = _weighted(recipe)
    parameters = sum(p.numel() for p in module.parameters())
    if isinstance(module, SAM):
        height, width = recipe.image_size
        return Subject(
            module=module,
            example_inputs=(_example(1, height * width, module.dim), height, width),
            output_names=["output"],
            info=_info(recipe, "sam", None, False, parameters),
            weights=weights,
            preprocessing=None,
            islands=recipe.islands,
        )
    assert isinstance(module, SMT)
    layer_scale = any(name.endswith("gamma_1") for name, _ in module.named_parameters())
    classes = None if recipe.features else module.num_classes
    if recipe.softmax:
        if not classes:
            raise InputError("softmax needs a model with classes; this one has none")
        module.head = nn.Sequential(module.head, nn.Softmax(dim=-1))
    return Subject(
        module=module,
        example_inputs=(_example(1, 3, *recipe.image_size),),
        output_names=_output_names(recipe, classes),
        info=_info(
            recipe,
            "backbone" if recipe.features else "classifier",
            classes,
            layer_scale,
            parameters,
        ),
        weights=weights,
        preprocessing=recipe.preprocessing or Preprocessing.for_size(*recipe.image_size),
        islands=[*recipe.islands, *([_SOFTMAX] if recipe.softmax else [])]
        if recipe.precision == "fp16"
        else [],
    )


def _example(*shape: int) -> Tensor:
    # Not zeros: on those a model without biases gives a constant, and every check would pass.
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def _weighted(recipe: Recipe) -> tuple[nn.Module, WeightsInfo]:
    if recipe.weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            module = _random(recipe)
    else:
        module, _ = load_model(
            Path(recipe.weights),
            name=recipe.model if recipe.architecture is None else None,
            architecture=recipe.architecture,
            num_classes=recipe.num_classes,
            features=recipe.features,
            ema=recipe.ema,
        )
        _check_sam(module, recipe)
    info = WeightsInfo(
        source="random" if recipe.weights is None else "checkpoint",
        file=None if recipe.weights is None else Path(recipe.weights).name,
        ema=recipe.ema,
        seed=SEED if recipe.weights is None else None,
        sha256=weights_sha256(module.state_dict()),
    )
    return module.eval().requires_grad_(False), info


def _random(recipe: Recipe) -> nn.Module:
    if recipe.is_sam:
        shape = recipe.sam or SamShape()
        return SAM(shape.dim, shape.heads, expand_ratio=shape.expand)
    classes = 1000 if recipe.num_classes is None else recipe.num_classes
    if recipe.architecture is not None:
        return SMT(recipe.architecture, num_classes=classes, features=recipe.features)
    return create_model(recipe.model, num_classes=classes, features=recipe.features)


def _check_sam(module: nn.Module, recipe: Recipe) -> None:
    if not isinstance(module, SAM) or recipe.sam is None:
        return
    found = SamShape(
        dim=module.dim,
        heads=module.ca_num_heads,
        expand=module.proj0.out_channels // module.dim,
    )
    if found != recipe.sam:
        raise InputError(
            f"{recipe.weights} holds a SAM of dim {found.dim}, {found.heads} heads, expand "
            f"{found.expand}; asked was dim {recipe.sam.dim}, {recipe.sam.heads} heads, expand "
            f"{recipe.sam.expand}. Leave --dim, --heads and --expand out to take the checkpoint's."
        )


def _output_names(recipe: Recipe, classes: int | None) -> list[str]:
    if recipe.features:
        return ["stage1", "stage2", "stage3", "stage4"]
    if recipe.softmax:
        return ["probabilities"]
    return ["logits" if classes else "pooled"]


def _info(
    recipe: Recipe, kind: str, classes: int | None, layer_scale: bool, parameters: int
) -> ModelInfo:
    return ModelInfo(
        name=recipe.model,
        kind=kind,  # type: ignore[arg-type]
        num_classes=classes,
        layer_scale=layer_scale,
        parameters=parameters,
    )
