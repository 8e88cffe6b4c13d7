"""A model repository written: every model whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.bundle.disk_full import told_if_full
from sam_deploy.bundle.exchange import exchange
from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest
from sam_deploy.plans import PlanInfo
from sam_deploy.serving.names import bundle_folder, model_names
from sam_deploy.serving.triton import preprocess_model
from sam_deploy.serving.triton.configs import (
    LABELS,
    MADE_BY,
    ensemble_config,
    onnx_config,
    plan_config,
    preprocess_config,
)

CONFIG = "config.pbtxt"
_VERSION = "1"
_QUANTIZED = ("int8", "fp8")


@dataclass(frozen=True)
class Written:
    """The models that were written, and what should be known of them."""

    models: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_repository(
    repository: Path, bundles: Sequence[Path], max_image_px: int = 64_000_000
) -> Written:
    """Write `bundles` as models of Triton's into the folder `repository`, named after their folder.

    Of each: its ONNX as `NAME`; its TensorRT plans as `NAME-trt`, `NAME-trt2` and so on; and where
    it takes images, for each of these a `-preprocess` model and a `-images` ensemble of both, whose
    input `image` is an encoded image. A model of ours that stands there is replaced in one step,
    models of others are left alone.

    Raises:
        InputError: a name is taken by a model of others, or by two of ours.
        BundleError: a bundle is not whole.
        MachineError: the disk is full; what stood there stands.
    """
    names = model_names(bundles)
    found = Written()
    made: dict[str, _Model] = {}
    for name, bundle in zip(names, map(bundle_folder, bundles), strict=True):
        for model in _models(name, bundle, read_bundle(bundle), max_image_px, found.notes):
            if model.name in made:
                raise InputError(f"two models would be called {model.name!r}. Rename a folder.")
            made[model.name] = model
    for name in made:
        _check_ours(repository / name)
    with told_if_full(repository.parent):
        _write(repository, list(made.values()))
    found.models.extend(made)
    return found


@dataclass(frozen=True)
class _Model:
    config: Any
    files: dict[str, Path | str]
    """What stands in its folder: files to copy, and texts."""

    @property
    def name(self) -> str:
        return str(self.config.name)


def _models(
    name: str, bundle: Path, manifest: Manifest, max_image_px: int, notes: list[str]
) -> Iterator[_Model]:
    labels: dict[str, Path | str] = {}
    if manifest.class_names:
        labels[LABELS] = "".join(f"{one}\n" for one in manifest.class_names)
    onnx = onnx_config(name, manifest)
    variants = [_Model(onnx, {f"{_VERSION}/model.onnx": bundle / MODEL, **labels})]
    for number, plan in enumerate(_plans(manifest), 1):
        config = plan_config(f"{name}-trt{number if number > 1 else ''}", manifest, plan.profile)
        file = {f"{_VERSION}/model.plan": bundle / plan.file}
        variants.append(_Model(config, {**file, **labels}))
        targets = ", ".join(plan.compute_capabilities)
        notes.append(
            f"{config.name} runs with TensorRT {plan.version} on compute capability {targets} "
            "alone: take a Triton container with that version"
        )
    if any(plan.flavour == "tensorrt-rtx" for plan in manifest.plans):
        notes.append(f"{name}: Triton has no backend for TensorRT-RTX; its plan is left out")
    if manifest.precision.precision in _QUANTIZED:
        notes.append(
            f"{name}: Triton starts ONNX Runtime with all its optimizers, of which one may round "
            "the biases of quantized layers; `sam-export` noted whether it does. The plans are not "
            "touched by it"
        )
    for variant in variants:
        yield variant
        if manifest.preprocessing is None or len(manifest.inputs) != 1:
            continue
        preprocess = preprocess_config(
            f"{variant.name}-preprocess", variant.config, manifest.preprocessing, max_image_px
        )
        yield _Model(preprocess, {f"{_VERSION}/model.py": Path(preprocess_model.__file__)})
        ensemble = ensemble_config(f"{variant.name}-images", preprocess, variant.config)
        yield _Model(ensemble, dict(labels))


def _plans(manifest: Manifest) -> list[PlanInfo]:
    return [plan for plan in manifest.plans if plan.flavour == "tensorrt"]


def _check_ours(folder: Path) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    config = folder / CONFIG
    if folder.is_symlink() or not config.is_file() or MADE_BY not in config.read_text():
        raise InputError(
            f"{folder} is there, and sam-serve did not write it. Choose another repository, or "
            "rename the bundle."
        )


def _write(repository: Path, models: Sequence[_Model]) -> None:
    try:
        repository.mkdir(parents=True, exist_ok=True)
        # beside the repository: Triton takes every folder in it for a model
        work = Path(tempfile.mkdtemp(prefix=f".{repository.name}.", dir=repository.parent))
    except OSError as error:
        raise InputError(f"cannot write to {repository}: {error.strerror}.") from None
    try:
        for model in models:
            _fill(work / model.name, model)
        for model in models:
            target = repository / model.name
            if not target.exists():
                (work / model.name).rename(target)
            elif not exchange(work / model.name, target):
                target.rename(work / f"{model.name}.old")
                (work / model.name).rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(folder: Path, model: _Model) -> None:
    (folder / _VERSION).mkdir(parents=True)  # Triton wants it of an ensemble, too
    (folder / CONFIG).write_text(text_format.MessageToString(model.config), encoding="utf-8")
    for name, content in model.files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / name)
        else:
            (folder / name).write_text(content, encoding="utf-8")
