"""Small graphs written node by node, and the ways to calibrate, quantize and run them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from conftest import TINY
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sam_deploy.exporter.calibrated import calibrate, quantize
from sam_deploy.parity import array_samples
from sam_deploy.progress import Progress
from sam_deploy.recipe import recipe_from_dict

OPSET = 20


class Net:
    """A graph of input `x` and seeded weights; every node is named "<path>/<op>"."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])

    def weight(self, values: Any) -> str:
        values = np.asarray(values)
        values = values.astype(np.float32) if values.dtype.kind == "f" else values
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape: int) -> str:
        return self.weight(self.random.standard_normal(shape))

    def add(self, op: str, path: str, *inputs: str, **attributes: Any) -> str:
        name = f"{path}/{op}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}:0"], name, **attributes))
        return f"{name}:0"

    def norm(self, path: str, x: str, channels: int, outliers: float = 1.0) -> str:
        """A LayerNorm whose first channel, if asked, is larger than the others."""
        gamma = self.random.uniform(0.5, 2, channels)
        gamma[0] *= outliers
        beta = self.normal(channels)
        return self.add("LayerNormalization", path, x, self.weight(gamma), beta, axis=-1)

    def model(self, *outputs: str) -> ir.Model:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", [self.given], ends, self.weights)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        proto.ir_version = 10
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        onnx.checker.check_model(proto, full_check=True)
        return ir.from_proto(proto)


def recipe(precision: str = "int8", **policy: Any) -> Any:
    data = {"model": "tiny", "architecture": TINY, "image_size": [64, 64], "precision": precision}
    return recipe_from_dict({**data, "quantization": policy}, "a test's recipe")


def calibrated(model: ir.Model, arrays: Any, precision: str = "int8", **policy: Any) -> Any:
    """Smooth `model`, in place, and calibrate it on the rows of `arrays`."""
    samples = array_samples("npz", arrays if isinstance(arrays, dict) else {"x": arrays})
    with tempfile.TemporaryDirectory() as work:
        asked = recipe(precision, **policy)
        return calibrate(model, asked, [], samples, Path(work), Progress())


def quantized(
    model: ir.Model, arrays: Any, precision: str = "int8", **policy: Any
) -> tuple[Any, Any]:
    """`model` in FP32 with Q/DQ in it, as ONNX, and the report."""
    report, _ = quantize(model, calibrated(model, arrays, precision, **policy), [])
    return ir.to_proto(model), report


def run(model: Any, x: Any, name: str = "x") -> list[Any]:
    """What ONNX Runtime makes of it, as the graph stands: nothing is fused."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {name: x})


def run_float64(model: ir.Model, x: Any) -> list[Any]:
    """What ONNX's own reference implementation makes of it in float64."""
    proto = onnx.ModelProto.FromString(ir.to_proto(model).SerializeToString())
    for weight in proto.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            wide = numpy_helper.to_array(weight).astype(np.float64)
            weight.CopyFrom(numpy_helper.from_array(wide, weight.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del proto.graph.value_info[:]
    return ReferenceEvaluator(proto).run(None, {"x": x.astype(np.float64)})


def relative_rms(a: Any, b: Any) -> float:
    return float(np.sqrt(np.mean(np.square(a - b))) / np.std(b))


def weights_of(proto: Any) -> dict[str, Any]:
    return {weight.name: numpy_helper.to_array(weight) for weight in proto.graph.initializer}


def nodes_of(proto: Any) -> dict[str, Any]:
    return {node.name: node for node in proto.graph.node}


def makers_of(proto: Any) -> dict[str, Any]:
    return {name: node for node in proto.graph.node for name in node.output}
