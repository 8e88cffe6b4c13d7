"""The names that the runner uses are in the bindings that are installed, with these parameters.

TensorRT's own bindings import against stand-ins for its libraries, so this also runs on them.
"""

import importlib

import pytest

NAMES = {
    "ILogger": ["ERROR", "INTERNAL_ERROR", "log"],
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        "create_execution_context", "get_tensor_dtype", "get_tensor_mode", "get_tensor_name",
        "get_tensor_shape", "num_io_tensors",
    ],
    "IExecutionContext": [
        "execute_async_v3", "get_tensor_shape", "set_input_shape", "set_tensor_address",
    ],
    "TensorIOMode": ["INPUT", "OUTPUT"],
    "DataType": ["FLOAT", "HALF", "INT64", "INT32", "INT8", "UINT8", "BOOL"],
}  # fmt: skip
RTX_ALONE = {
    "Runtime": ["get_engine_validity"],
    "EngineValidity": ["INVALID"],
    "EngineInvalidityDiagnostics": ["VERSION_MISMATCH", "UNSUPPORTED_CC", "OLD_CUDA_DRIVER"],
    "ICudaEngine": ["create_runtime_config"],
    "IExecutionContext": ["is_stream_capturable"],
    "IRuntimeConfig": [
        "create_runtime_cache", "set_runtime_cache",
        "dynamic_shapes_kernel_specialization_strategy",
    ],
    "IRuntimeCache": ["deserialize", "serialize"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
}  # fmt: skip
PARAMETERS = {
    "Runtime.deserialize_cuda_engine": "serialized_engine: typing_extensions.Buffer)",
    "IExecutionContext.execute_async_v3": "stream_handle: typing.SupportsInt)",
    "IExecutionContext.set_input_shape": "name: str, shape: tuple)",
    "IExecutionContext.set_tensor_address": "name: str, memory: typing.SupportsInt)",
    "IExecutionContext.get_tensor_shape": "name: str)",
    "ICudaEngine.create_execution_context": "runtime_config:",
}


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_the_names_are_there(name):
    module = pytest.importorskip(name, exc_type=ImportError)
    wanted = [NAMES] + ([RTX_ALONE] if name == "tensorrt_rtx" else [])
    missing = [
        f"{kind}.{member}"
        for names in wanted
        for kind, members in names.items()
        for member in members
        if not hasattr(getattr(module, kind, None), member)
    ]
    assert missing == []
    for path, parameters in PARAMETERS.items():
        kind, member = path.split(".")
        assert parameters in getattr(getattr(module, kind), member).__doc__, path


def test_what_is_detected_by_name_is_where_it_should_be():
    """`hasattr` chooses the way: the runtime cache and the questions are TensorRT-RTX's alone."""
    rtx = pytest.importorskip("tensorrt_rtx")
    assert hasattr(rtx, "IRuntimeCache")
    module = pytest.importorskip("tensorrt", exc_type=ImportError)
    assert not hasattr(module, "IRuntimeCache")
    assert not hasattr(module.Runtime, "get_engine_validity")
    assert not hasattr(module.IExecutionContext, "is_stream_capturable")


def test_cuda_core_has_what_is_used():
    core = importlib.import_module("cuda.core")
    graphs = importlib.import_module("cuda.core.graph")
    utils = importlib.import_module("cuda.core.utils")
    for kind, members in {
        core.Device: ["allocate", "compute_capability", "create_stream", "device_id", "name"],
        core.Stream: ["close", "create_graph_builder", "handle", "sync"],
        core.Buffer: ["close", "copy_from", "from_handle", "handle", "__dlpack_device__"],
        core.LegacyPinnedMemoryResource: ["allocate"],
        graphs.GraphBuilder: ["begin_building", "close", "complete", "end_building"],
        graphs.Graph: ["close", "launch"],
        utils.StridedMemoryView: ["from_any_interface", "from_buffer", "__dlpack__"],
    }.items():
        assert [name for name in members if not hasattr(kind, name)] == []
    assert "thread_local" in graphs.GraphBuilder.begin_building.__doc__
    assert core.StreamOptions().nonblocking
