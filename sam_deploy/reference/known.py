"""The models that we know: an SMT or the SAM module, as a recipe describes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sam_deploy.class_names import names_for
from sam_deploy.errors import InputError
from sam_deploy.manifest import ModelInfo, WeightsInfo
from sam_deploy.models import SAM, SMT, create_model
from sam_deploy.models.fit import load_model
from sam_deploy.models.weights_hash import weights_sha256
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import Island, Recipe, SamShape
from sam_deploy.reference.subject import Subject

SEED = 0  # of random weights
_SOFTMAX = Island(
    match="head.1", reason="softmax: probabilities of many classes lie below FP16's resolution"
)


def known_subject(recipe: Recipe) -> Subject:
    """The eager model that `recipe` describes, with its checkpoint's or seeded random weights.

    Raises:
        InputError: the checkpoint or the options do not fit the model.
    """
    module, weights = _weighted(recipe)
    parameters = sum(p.numel() for p in module.parameters())
    if isinstance(module, SAM):
        height, width = recipe.size
        return Subject(
            module=module,
            example_inputs=(example_tensor(1, height * width, module.dim), height, width),
            input_names=["input"],
            output_names=["output"],
            info=_info(recipe, "sam", None, False, parameters),
            weights=weights,
            preprocessing=None,
            class_names=[],
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
        example_inputs=(example_tensor(1, 3, *recipe.size),),
        input_names=["input"],
        output_names=_output_names(recipe, classes),
        info=_info(
            recipe,
            "backbone" if recipe.features else "classifier",
            classes,
            layer_scale,
            parameters,
        ),
        weights=weights,
        preprocessing=recipe.preprocessing or Preprocessing.for_size(*recipe.size),
        class_names=_class_names(recipe, classes),
        islands=[*recipe.islands, *([_SOFTMAX] if recipe.softmax else [])]
        if recipe.precision != "fp32"
        else [],
    )


def example_tensor(*shape: int) -> Tensor:
    """Standard normal, seeded."""
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


def _class_names(recipe: Recipe, classes: int | None) -> list[str]:
    if not classes:
        if recipe.class_names:
            raise InputError("class names need a model with classes; this one has none.")
        return []
    return list(names_for(classes, Path(recipe.class_names) if recipe.class_names else None))


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
