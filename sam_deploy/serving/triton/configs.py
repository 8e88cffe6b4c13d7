"""What Triton is told of each model: its `config.pbtxt`, as Triton's own messages.

Triton's "Model Configuration". Sizes are without the batch where a model batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from tritonclient.grpc import model_config_pb2 as pb

import sam_deploy
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.plans import BatchProfile
from sam_deploy.preprocess import Preprocessing
from sam_deploy.serving.datatypes import datatype_of

LABELS = "labels.txt"
MADE_BY = "sam_deploy"
"""The parameter by which our own models are told from others in a repository."""
IMAGE = "image"
_QUEUE_DELAY_US = 100
_ONNX_MAX_BATCH = 32


def onnx_config(name: str, manifest: Manifest) -> Any:
    """Of the bundle's ONNX, for Triton's ONNX Runtime backend on whatever it runs on."""
    profile = manifest.recipe.plans.profile
    config = _of_tensors(name, manifest, profile)
    config.platform, config.backend = "onnxruntime_onnx", "onnxruntime"
    config.default_model_filename = "model.onnx"
    return config


def plan_config(name: str, manifest: Manifest, profile: BatchProfile | None) -> Any:
    """Of a TensorRT plan, whose batches are in `profile`."""
    config = _of_tensors(name, manifest, profile)
    config.platform, config.backend = "tensorrt_plan", "tensorrt"
    config.default_model_filename = "model.plan"
    return config


def preprocess_config(
    name: str, model: Any, preprocessing: Preprocessing, max_image_px: int
) -> Any:
    """Of the Python model that makes the input of `model` of encoded images."""
    (given,) = model.input
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=model.max_batch_size)
    config.input.add(name=IMAGE, data_type=pb.TYPE_STRING, dims=_images(model))
    config.output.add(name=given.name, data_type=given.data_type, dims=given.dims)
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    settings = {**msgspec.to_builtins(preprocessing), "max_image_px": max_image_px}
    config.parameters["preprocessing"].string_value = json.dumps(settings)
    return _signed(config)


def ensemble_config(name: str, preprocess: Any, model: Any) -> Any:
    """Of the two in a row: encoded images in, the model's outputs out."""
    (given,) = preprocess.output
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=model.max_batch_size)
    config.input.add(name=IMAGE, data_type=pb.TYPE_STRING, dims=_images(model))
    config.output.extend(model.output)
    first = config.ensemble_scheduling.step.add(model_name=preprocess.name, model_version=-1)
    first.input_map[IMAGE] = IMAGE
    first.output_map[given.name] = "preprocessed"
    second = config.ensemble_scheduling.step.add(model_name=model.name, model_version=-1)
    second.input_map[given.name] = "preprocessed"
    for output in model.output:
        second.output_map[output.name] = output.name
    return _signed(config)


def _of_tensors(name: str, manifest: Manifest, profile: BatchProfile | None) -> Any:
    batches = profile is not None and _share_a_batch([*manifest.inputs, *manifest.outputs])
    most = (profile.max if profile else _ONNX_MAX_BATCH) if batches else 0
    config = pb.ModelConfig(name=name, max_batch_size=most)
    for spec in manifest.inputs:
        _add(config.input, spec, batches=batches)
    for spec in manifest.outputs:
        _add(config.output, spec, batches=batches)
    if manifest.class_names:
        for output in config.output:
            output.label_filename = LABELS
    sizes = [1]
    if batches and profile is not None:
        config.dynamic_batching.preferred_batch_size.extend(sorted({profile.opt, profile.max}))
        config.dynamic_batching.max_queue_delay_microseconds = _QUEUE_DELAY_US
        sizes = sorted({profile.min, profile.opt, profile.max})
    for size in sizes:
        _add_warmup(config, size)
    return _signed(config)


def _add(ports: Any, spec: TensorSpec, *, batches: bool) -> None:
    sizes = [-1 if isinstance(dim, str) else dim for dim in spec.dims]
    sizes = sizes[1:] if batches else sizes
    port = ports.add(name=spec.name, data_type=_type(spec), dims=sizes or [1])
    if not sizes:  # Triton has no tensor without sizes
        port.reshape.SetInParent()


def _add_warmup(config: Any, size: int) -> None:
    warmup = config.model_warmup.add(name=f"batch {size}", batch_size=size)
    for port in config.input:
        zeros = warmup.inputs[port.name]
        zeros.data_type, zeros.zero_data = port.data_type, True
        zeros.dims.extend(1 if dim < 0 else dim for dim in port.dims)


def _images(model: Any) -> list[int]:
    """Of a model that does not batch, as many as its own first size."""
    return [1] if model.max_batch_size else [model.input[0].dims[0]]


def _share_a_batch(specs: Iterable[TensorSpec]) -> bool:
    firsts: Sequence[int | str] = [(spec.dims or [0])[0] for spec in specs]
    return len(set(firsts)) == 1 and isinstance(firsts[0], str)


def _type(spec: TensorSpec) -> Any:
    return pb.DataType.Value(f"TYPE_{datatype_of(spec.dtype)}")


def _signed(config: Any) -> Any:
    config.parameters[MADE_BY].string_value = sam_deploy.__version__
    return config
