"""The names of TensorRT's API that we use, held against the bindings of TensorRT 10, 11 and RTX.

TensorRT itself cannot run without a GPU, so what is only called there would break unseen.
"""

import ast
import json
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import trt_names

import sam_deploy

# By class; "" is the module. Whatever a class has and our source reads must stand here.
API = {
    "": "Builder BuilderFlag ILogger IProgressMonitor NetworkDefinitionCreationFlag OnnxParser "
    "Runtime __version__",
    "Builder": "build_serialized_network create_builder_config create_network "
    "create_optimization_profile",
    "BuilderFlag": "TF32",
    "IBuilderConfig": "add_optimization_profile builder_optimization_level clear_flag "
    "create_timing_cache progress_monitor set_timing_cache",
    "ICudaEngine": "create_execution_context create_runtime_config get_tensor_dtype "
    "get_tensor_mode get_tensor_name get_tensor_shape name num_io_tensors",
    "IExecutionContext": "execute_async_v3 get_tensor_shape name set_input_shape "
    "set_tensor_address",
    "IHostMemory": "dtype nbytes",
    "ILayer": "get_input get_output metadata name num_inputs num_outputs type",
    "ILogger": "ERROR INTERNAL_ERROR WARNING log",
    "INetworkDefinition": "get_input get_layer get_output name num_inputs num_layers num_outputs",
    "IOptimizationProfile": "set_shape",
    "IProgressMonitor": "phase_finish phase_start step_complete",
    "ITensor": "dtype name shape",
    "ITimingCache": "combine serialize",
    "LayerType": "CONVOLUTION DECONVOLUTION DEQUANTIZE EINSUM MATRIX_MULTIPLY SHUFFLE SQUEEZE "
    "UNSQUEEZE",
    "DataType": "BF16 BOOL FLOAT FP8 HALF INT32 INT64 INT8 UINT8",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "OnnxParser": "get_error num_errors parse_from_file",
    "ParserError": "code desc node_name node_operator",
    "Runtime": "deserialize_cuda_engine",
    "TensorIOMode": "INPUT OUTPUT",
}
RTX_ONLY = {
    "": "ComputeCapability DynamicShapesKernelSpecializationStrategy EngineInvalidityDiagnostics "
    "EngineValidity IRuntimeCache",
    "ComputeCapability": "SM75 SM80 SM86 SM89 SM120 SM121",
    "DynamicShapesKernelSpecializationStrategy": "EAGER",
    "EngineValidity": "INVALID",
    "IBuilderConfig": "num_compute_capabilities set_compute_capability",
    "IExecutionContext": "is_stream_capturable",
    "IRuntimeCache": "deserialize serialize",
    "IRuntimeConfig": "create_runtime_cache dynamic_shapes_kernel_specialization_strategy "
    "set_runtime_cache",
    "Runtime": "get_engine_validity",
}
# What we give without naming it, as the docstrings of the bindings have it.
SIGNATURES = {
    ("Runtime", "deserialize_cuda_engine"): "serialized_engine: typing_extensions.Buffer)",
    ("IExecutionContext", "execute_async_v3"): "stream_handle: typing.SupportsInt)",
    ("IExecutionContext", "set_input_shape"): "name: str, shape: tuple)",
    ("IExecutionContext", "set_tensor_address"): "name: str, memory: typing.SupportsInt)",
    ("IExecutionContext", "get_tensor_shape"): "name: str)",
}
# What TensorRT's classes have as well, and our source reads from something else.
COMMON = {
    *("__init__", "__members__", "__name__", "file", "itemsize", "logger", "name", "node"),
    *("float32", "precision", "uint8", "update", "value", "warnings"),
}
OF_OTHERS = {
    ("ICudaEngine", "num_layers"),
    ("ICudaEngine", "serialize"),
    ("OnnxParser", "clear_flag"),
}
ENVIRONMENT = Path(sys.prefix)
FULL = {"10.16": ENVIRONMENT / "tensorrt-10.16", "11.4": ENVIRONMENT / "tensorrt-11.4"}
SOURCES = sorted(
    path
    for part in ("engines", "runtime", "tensorrt_family")
    for path in (Path(sam_deploy.__file__).parent / part).glob("*.py")
)

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="there are no bindings"
)


@cache
def names(member):
    """{class: {name: docstring}}; `member` is "rtx", "10.16" or "11.4"."""
    given = "tensorrt_rtx" if member == "rtx" else FULL[member]
    assert member == "rtx" or given.is_dir(), "run `make setup`: it brings the bindings"
    command = [sys.executable, trt_names.__file__, str(given)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed(api):
    return {(owner, name) for owner, text in api.items() for name in text.split()}


def present(member):
    return {(owner, name) for owner, found in names(member).items() for name in found}


@pytest.mark.parametrize("member", ["10.16", "11.4", "rtx"])
def test_every_name_that_we_use_is_there(member):
    assert listed(API) - present(member) == set()


def test_what_only_rtx_has():
    assert listed(RTX_ONLY) - present("rtx") == set()
    for member in FULL:
        assert listed(RTX_ONLY) & present(member) == set()


def nodes():
    for path in SOURCES:
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("member", ["10.16", "11.4", "rtx"])
def test_the_lists_forget_nothing(member):
    known = listed(API) | listed(RTX_ONLY)
    owners = {owner for owner, _ in known}
    read = {node.attr for node in nodes() if isinstance(node, ast.Attribute)}
    for node in nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            read.add(ast.unparse(node.args[1]).strip("'"))
    used = {(owner, name) for owner, name in present(member) if owner in owners and name in read}
    unlisted = used - known - OF_OTHERS
    assert {pair for pair in unlisted if pair[1] not in COMMON} == set()


@pytest.mark.parametrize("member", ["10.16", "11.4", "rtx"])
def test_arguments_that_we_name_are_called_so(member):
    ours = [node for node in nodes() if isinstance(node, ast.Call) and node.keywords]
    checked = set()
    for call in ours:
        for owner, name in listed(API) if isinstance(call.func, ast.Attribute) else ():
            if name == call.func.attr:
                for keyword in call.keywords:
                    assert f"{keyword.arg}:" in names(member)[owner][name], (owner, name)
                    checked.add((name, keyword.arg))
    assert ("combine", "ignore_mismatch") in checked


@pytest.mark.parametrize("member", ["10.16", "11.4", "rtx"])
def test_arguments_that_we_do_not_name_are_in_that_order(member):
    for (owner, name), signature in SIGNATURES.items():
        assert signature in names(member)[owner][name], (owner, name)
