"""A network of the user's own: a module in memory, or a factory that a recipe names."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sam_deploy.class_names import read_class_names
from sam_deploy.errors import InputError, nearest
from sam_deploy.manifest import ModelInfo, WeightsInfo
from sam_deploy.models.own_weights import load_weights
from sam_deploy.models.weights_hash import weights_sha256
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import Recipe
from sam_deploy.reference.known import example_tensor
from sam_deploy.reference.outputs import named_outputs, output_names
from sam_deploy.reference.subject import Subject
from sam_deploy.reference.user_code import line_of
from sam_deploy.rewrites import evaluation_copy


def factory_subject(recipe: Recipe) -> Subject:
    """The network that the factory `recipe.model` makes, with the recipe's weights if it has any.

    The factory is called without arguments and returns a module, or a module and its example
    inputs; without these the input is an image of the recipe's size.

    Raises:
        InputError: the factory cannot be imported or called, or returns something else; the
            weights do not fit; and as `module_subject`.
    """
    made = _made(recipe.model)
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{recipe.model} returned a {type(made).__name__}; expected a torch.nn.Module, or a "
            "tuple of one and its example inputs."
        )
    preprocessing = recipe.preprocessing
    size = recipe.image_size or (None if preprocessing is None else preprocessing.size_px)
    if inputs is None:
        if size is None:
            raise InputError(
                f"{recipe.model} gives no example inputs: let it return (module, example_inputs), "
                "or say the image's size with --image-size (image_size in a recipe)."
            )
        inputs = example_tensor(1, 3, *size)
        preprocessing = preprocessing or Preprocessing.for_size(*size)
    if recipe.weights is not None:
        load_weights(module, Path(recipe.weights), ema=recipe.ema)
    names = list(read_class_names(Path(recipe.class_names))) if recipe.class_names else []
    return module_subject(module, inputs, recipe, preprocessing, names)


def module_subject(
    module: nn.Module,
    example_inputs: Any,
    recipe: Recipe,
    preprocessing: Preprocessing | None,
    class_names: Sequence[str],
) -> Subject:
    """A copy of `module` as the reference: on the CPU, in FP32, in evaluation mode.

    `example_inputs` are its positional arguments, or the only one; tensors have the batch first.

    Raises:
        InputError: the module does not run on them, or names, sizes or classes do not fit.
    """
    inputs = _positional(example_inputs)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    try:
        reference = evaluation_copy(module).requires_grad_(False)
    except Exception as error:  # locks, scripted, lazy or meta modules: each in its own way
        raise InputError(
            f"the network cannot be copied to the CPU in FP32: {type(error).__name__}: {error}. "
            "Give a plain torch.nn.Module with its weights."
        ) from error
    names = _input_names(reference, inputs, recipe)
    try:
        with torch.no_grad():
            outputs = reference(*pytree.tree_map_only(Tensor, Tensor.clone, inputs))
    except Exception as error:  # it may raise anything
        line = line_of(error)
        raise InputError(
            f"the network does not run on the example inputs{f', at {line}' if line else ''}: "
            f"{type(error).__name__}: {error}"
        ) from error
    listed = recipe.output_names or output_names(outputs)
    made = named_outputs(outputs, listed)
    twice = {name for name in [*names, *listed] if [*names, *listed].count(name) > 1}
    if twice:
        raise InputError(f"{', '.join(sorted(twice))}: inputs and outputs need a name each.")
    _check_images(inputs, preprocessing)
    if class_names and (preprocessing is None or len(made) != 1):
        raise InputError("class names need preprocessing, and one output of scores.")
    if class_names and made[listed[0]].shape[1:] != (len(class_names),):
        raise InputError(
            f"the output has shape {made[listed[0]].shape}; for {len(class_names)} class names "
            f"expected (batch, {len(class_names)})."
        )
    return Subject(
        module=reference,
        example_inputs=inputs,
        input_names=names,
        output_names=listed,
        info=ModelInfo(
            name=recipe.model,
            kind="classifier" if class_names else "module",
            num_classes=len(class_names) or None,
            layer_scale=False,
            parameters=sum(p.numel() for p in reference.parameters()),
        ),
        weights=WeightsInfo(
            source="module" if recipe.weights is None else "checkpoint",
            file=None if recipe.weights is None else Path(recipe.weights).name,
            ema=recipe.ema,
            seed=None,
            sha256=weights_sha256(reference.state_dict()),
        ),
        preprocessing=preprocessing,
        class_names=list(class_names),
        islands=recipe.islands,
        own=True,
    )


def _made(model: str) -> Any:
    """What the factory "package.module:factory" returns."""
    path, _, name = model.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found = importlib.import_module(path)
    except Exception as error:  # importing runs the user's code
        line = line_of(error)
        raise InputError(
            f"cannot import {path!r} of --model {model}{f', at {line}' if line else ''}: "
            f"{type(error).__name__}: {error}. It is looked for in the working directory and "
            "among the installed packages."
        ) from error
    factory = getattr(found, name, None)
    if not callable(factory):
        known = [key for key, value in vars(found).items() if callable(value)]
        raise InputError(f"{path} has no function or class {name!r}.{nearest(name, known)}")
    try:
        return factory()
    except Exception as error:
        line = line_of(error)
        raise InputError(
            f"{model}() fails{f', at {line}' if line else ''}: {type(error).__name__}: {error}. "
            "It is called without arguments."
        ) from error


def _positional(example_inputs: Any) -> tuple[Any, ...]:
    given = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    inputs = tuple(_plain(x) if isinstance(x, Tensor) else x for x in given)
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    for x in inputs:
        if not isinstance(x, Tensor | int | float | bool | str | None):
            raise InputError(
                f"an example input is a {type(x).__name__}; expected tensors and plain numbers, "
                "one for each positional argument of forward. Wrap the network for others."
            )
    batches = {x.shape[0] if x.ndim else 0 for x in tensors}
    if len(batches) != 1 or batches == {0}:
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors) or "no tensor"
        raise InputError(
            f"expected example inputs with the batch in dimension 0, the same for each; got "
            f"{shapes}. Make a tensor without a batch a buffer of the network."
        )
    return inputs


def _plain(x: Tensor) -> Tensor:
    """A copy on the CPU, contiguous, any width of float as float32."""
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).clone(memory_format=torch.contiguous_format)


def _input_names(module: nn.Module, inputs: tuple[Any, ...], recipe: Recipe) -> list[str]:
    count = sum(isinstance(x, Tensor) for x in inputs)
    if recipe.input_names:
        if len(recipe.input_names) != count:
            raise InputError(
                f"got {len(recipe.input_names)} input names for {count} tensors among the example "
                "inputs; give one for each."
            )
        return recipe.input_names
    if count == 1:
        return ["input"]
    named = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(named) < len(inputs):  # forward(*inputs)
        return [f"input_{i}" for i in range(count)]
    return [name for name, x in zip(named, inputs, strict=False) if isinstance(x, Tensor)]


def _check_images(inputs: tuple[Any, ...], preprocessing: Preprocessing | None) -> None:
    if preprocessing is None:
        return
    shapes = [tuple(x.shape[1:]) for x in inputs if isinstance(x, Tensor)]
    wanted = (3, *preprocessing.size_px)
    if shapes != [wanted]:
        raise InputError(
            f"preprocessing gives one image of shape {wanted}; the example inputs have "
            f"{', '.join(map(str, shapes))}. Set size_px to what the network takes, or leave "
            "preprocessing out."
        )
