"""Small graphs written by hand: what our exporter never makes, and what it does."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from sam_deploy.manifest import PrecisionReport
from sam_deploy.plans import PlanOptions
from sam_deploy.precision.quantize import insert_qdq, quantized_weight
from sam_deploy.progress import Progress
from sam_deploy.quantization import CalibrationReport, QuantizationReport, QuantizedLayer

RTX = PlanOptions(engines=["tensorrt-rtx"])


def report(precision="fp16", io_dtype="fp16", islands=(), layers=None):
    """A report that says what a graph should be; `layers` are the nodes that are quantized."""
    quantization = None
    if layers is not None:
        quantization = QuantizationReport(
            calibration=CalibrationReport(data="none", samples=1, sha256="", method="minmax"),
            layers=[QuantizedLayer(name=n, kind="linear", input_range=1.0) for n in layers],
            smoothed=0,
            macs=1.0,
        )
    return PrecisionReport(
        precision=precision,
        io_dtype=io_dtype,
        islands=list(islands),
        island_macs=0.0,
        types_by_op={},
        quantization=quantization,
    )


def saved(path, nodes, weights=(), dtype=TensorProto.FLOAT16, dims=(1, 4, 8, 8), domain="own"):
    """An ONNX file of `nodes` from x to y."""
    ends = [helper.make_tensor_value_info(name, dtype, dims) for name in "xy"]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], list(weights))
    opsets = [helper.make_opsetid(name, version) for name, version in (("", 20), (domain, 1))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def node(op, inputs, outputs, name=None, **attributes):
    return helper.make_node(op, inputs, outputs, name=name or f"stem.conv/{op}", **attributes)


def weight(name, value, dtype=np.float16):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def conv(path, dtype=np.float16):
    """One convolution, of type `dtype` from end to end."""
    weights = [weight("w", np.ones((4, 4, 1, 1)), dtype)]
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return saved(path, [node("Conv", ["x", "w"], ["y"])], weights, elem)


def quantized_conv(path, elem=TensorProto.INT8, activation=True, kernel=True, zero=0):
    """A convolution whose activation and kernel come from Q/DQ of the type `elem`, or do not."""
    weights = [weight("scale", 0.1), weight("scales", [0.1] * 4)]
    weights += [helper.make_tensor("zero", elem, [], [zero])]
    weights += [helper.make_tensor("zeros", elem, [4], [zero] * 4)]
    nodes, x, w = [], "x", "w"
    if activation:
        nodes += [node("QuantizeLinear", ["x", "scale", "zero"], ["q"])]
        nodes += [node("DequantizeLinear", ["q", "scale", "zero"], ["dq"])]
        x = "dq"
    if kernel:
        weights += [helper.make_tensor("wq", elem, [4, 4, 1, 1], [1] * 16)]
        name = "stem.conv/DequantizeLinear_2"
        nodes += [node("DequantizeLinear", ["wq", "scales", "zeros"], ["wdq"], name, axis=0)]
        w = "wdq"
    else:
        weights += [weight("w", np.ones((4, 4, 1, 1)))]
    nodes += [node("Conv", [x, w], ["y"])]
    return saved(path, nodes, weights)


def quantize(graph, layers, grid):
    """Put Q/DQ around every one of `layers`; what is built does not depend on the ranges."""
    ranges = {layer.input: 1.0 for layer in layers}
    insert_qdq(graph, layers, ranges, {x.name: quantized_weight(x, grid) for x in layers}, grid)


class Notes(Progress):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)
