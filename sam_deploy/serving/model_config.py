"""A model as Triton's model configuration extension describes it."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from sam_deploy.serving.servable import Port, Servable


def model_config(model: Servable) -> Any:
    """The `ModelConfig`; sizes are without the batch where the model batches."""
    config = model_config_pb2.ModelConfig(
        name=model.name,
        platform="sam_deploy",
        backend="sam_deploy",
        max_batch_size=model.max_batch,
    )
    for port in model.inputs:
        config.input.add(name=port.name, data_type=_type(port), dims=_dims(model, port))
    for port in model.outputs:
        config.output.add(name=port.name, data_type=_type(port), dims=_dims(model, port))
    if model.max_batch > 1:
        config.dynamic_batching.SetInParent()
    for key, value in model.about.items():
        config.parameters[key].string_value = value
    return config


def model_config_json(model: Servable) -> dict[str, Any]:
    """The same for JSON."""
    found: dict[str, Any] = json_format.MessageToDict(
        model_config(model), preserving_proto_field_name=True
    )
    return found


def _dims(model: Servable, port: Port) -> list[int]:
    if not model.max_batch:
        return list(port.shape)
    return list(port.shape[1:]) or [1]  # Triton's configurations have no tensor without dims


def _type(port: Port) -> Any:
    name = "STRING" if port.datatype == "BYTES" else port.datatype
    return model_config_pb2.DataType.Value(f"TYPE_{name}")
