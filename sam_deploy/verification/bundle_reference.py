"""The untouched FP32 model that a bundle was made from, with the very weights it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest
from sam_deploy.recipe import Recipe, recipes_folder
from sam_deploy.reference import Subject, module_subject, subject_from_recipe
from sam_deploy.verification.asked import Asked


def bundle_reference(manifest: Manifest, asked: Asked) -> Subject:
    """The reference of the bundle with `manifest`; its preprocessing is the recipe's, not what the
    manifest tells services.

    Nothing that a bundle names is imported: a network of one's own is given by who asks.

    Raises:
        InputError: no weights where there should be some, or others than the manifest names.
    """
    recipe = msgspec.structs.replace(manifest.recipe, class_names=None)
    if asked.module is not None:
        names = {
            "input_names": [spec.name for spec in manifest.inputs],
            "output_names": [spec.name for spec in manifest.outputs],
        }
        recipe = msgspec.structs.replace(recipe, weights=None, **names)
        subject = module_subject(
            asked.module, asked.example_inputs, recipe, recipe.preprocessing, manifest.class_names
        )
    else:
        subject = subject_from_recipe(_with_weights(_with_model(recipe, asked), manifest, asked))
    found, wanted = subject.weights.sha256, manifest.weights.sha256
    if found != wanted:
        raise InputError(_others(manifest, asked, found))
    if not subject.own:
        return replace(subject, class_names=manifest.class_names)
    info = msgspec.structs.replace(
        subject.info, kind=manifest.model.kind, num_classes=manifest.model.num_classes
    )
    return replace(subject, class_names=manifest.class_names, info=info)


def _with_model(recipe: Recipe, asked: Asked) -> Recipe:
    if not recipe.is_own:
        if asked.model is not None:
            raise InputError(
                f"the bundle is of {recipe.model}, which needs no --model: leave it out."
            )
        return recipe
    if asked.model is None:
        raise InputError(
            f"the bundle is of a network of your own ({recipe.model}), and nothing that a bundle "
            "names is imported. Name what makes it: --model package.module:factory; in Python give "
            "the module and its example inputs."
        )
    if ":" not in asked.model:
        raise InputError(f"--model {asked.model}: expected package.module:factory.")
    return msgspec.structs.replace(recipe, model=asked.model)


def _with_weights(recipe: Recipe, manifest: Manifest, asked: Asked) -> Recipe:
    if recipe.weights is None:
        if asked.weights is not None and not recipe.is_own:
            raise InputError(
                "the bundle holds seeded random weights, not those of a checkpoint: leave "
                "--weights out, or export the checkpoint first."
            )
        given = asked.weights and str(asked.weights)
        return msgspec.structs.replace(recipe, weights=given)
    path = asked.weights or _shipped(recipe.weights)
    if path is None:
        raise InputError(
            f"the bundle was made from {recipe.weights} (SHA-256 {manifest.weights.sha256[:16]}...)"
            ": give that checkpoint with --weights."
        )
    return msgspec.structs.replace(recipe, weights=str(path))


def _shipped(name: str) -> Path | None:
    """A checkpoint that comes with the shipped recipes; its hash is held against the manifest."""
    path = recipes_folder() / Path(name).name
    return path if path.is_file() else None


def _others(manifest: Manifest, asked: Asked, found: str) -> str:
    hashes = f"SHA-256 {found[:16]}..., the manifest names {manifest.weights.sha256[:16]}..."
    if manifest.weights.source == "random" and asked.module is None:
        made = manifest.versions.get("torch", "another torch")
        return (
            f"the seeded random weights come out otherwise with torch {torch.__version__} than "
            f"with {made} ({hashes}). Export again, or verify with that torch."
        )
    what = asked.weights or asked.model or "the module"
    return (
        f"{what} holds other weights than the bundle was made from ({hashes}). Give the checkpoint "
        "that was exported, or export this one."
    )
