"""What this CPU does at most, measured, and what a graph asks of it at least."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from sam_deploy.precision.macs import multiply_adds, sizes

_SIDES = (512, 1024, 2048)
_ROUNDS = 15
_COPY_BYTES = 2**28
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def peaks() -> dict[str, float]:
    """Multiply-adds a second of the best matrix product in each precision, and bytes a second of a
    copy, both as large as they get here with all cores.
    """
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = 2 * _COPY_BYTES / _least_s(lambda: target.copy_(source))
    return {
        "fp32": max(max(_torch_macs(side, torch.float32), _onnx_macs(side)) for side in _SIDES),
        "bf16": max(_torch_macs(side, torch.bfloat16) for side in _SIDES),
        "int8": max(_onnx_macs(side, integer=True) for side in _SIDES),
        "copied bytes": copied,
    }


def asked(model: Path) -> dict[str, int]:
    """The multiply-adds of the FP32 graph `model` for a sample, its weights, and how many values go
    into its layers and come out.
    """
    graph = ir.load(model).graph
    layers = [node for node in graph if node.op_type in LAYERS]
    values = weights = 0
    for value in (one for node in layers for one in (*node.inputs, *node.outputs) if one):
        if value.const_value is None:
            values += math.prod(sizes(value))
        else:
            weights += math.prod(sizes(value))
    return {
        "multiply-adds": sum(multiply_adds(node) for node in layers),
        "weights": weights,
        "values": values,
    }


def _torch_macs(side: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    with torch.inference_mode():
        return float(side**3) / _least_s(lambda: torch.mm(a, b))


def _onnx_macs(side: int, *, integer: bool = False) -> float:
    """ONNX Runtime's, which has the better FP32 on some CPUs, and INT8."""
    kind, result = TensorProto.FLOAT, TensorProto.FLOAT
    if integer:
        kind, result = TensorProto.UINT8, TensorProto.INT32
    weights = np.ones((side, side), np.int8 if integer else np.float32)
    node = helper.make_node("MatMulInteger" if integer else "MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("x", kind, [side, side])],
        [helper.make_tensor_value_info("y", result, [side, side])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.ones((side, side), np.uint8 if integer else np.float32)
    return float(side**3) / _least_s(lambda: session.run(None, {"x": x}))


def _least_s(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)
