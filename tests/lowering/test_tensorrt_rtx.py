"""The real TensorRT-RTX parser takes our graphs without a word; it runs without a GPU."""

import numpy as np
import pytest
import tensorrt_rtx as trt
import tiny_graphs
from onnx import TensorProto, helper, numpy_helper
from rtx import Parsed

from sam_deploy.lowering import check_graph
from sam_deploy.precision import to_fp16
from sam_deploy.recipe import Island


def typed_bytes(model, precision, kind=""):
    islands = [Island(match="head.1", reason="a test")] if kind == "softmax" else []
    if precision == "fp16":
        to_fp16(model, islands)
    return tiny_graphs.ir.to_proto(model).SerializeToString()


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["classifier", "softmax", "features", "sam"])
def test_the_parser_takes_it_and_says_nothing(kind, precision):
    parsed = Parsed(typed_bytes(tiny_graphs.graph(kind), precision, kind))
    assert parsed.taken
    assert parsed.complaints == []
    outputs = [parsed.network.get_output(i) for i in range(parsed.network.num_outputs)]
    assert [o.name for o in outputs] == tiny_graphs.case(kind).outputs
    assert {o.dtype for o in outputs} == {trt.DataType.FLOAT}


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_builds_and_is_in_the_precision_asked_for(precision):
    parsed = Parsed(typed_bytes(tiny_graphs.graph(), precision))
    expected = trt.DataType.HALF if precision == "fp16" else trt.DataType.FLOAT
    layers = [parsed.network.get_layer(i) for i in range(parsed.network.num_layers)]
    convs = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    assert len(convs) == 48
    assert {layer.get_output(0).dtype for layer in convs} == {expected}
    assert all("block" in c.name or "patch_embed" in c.name for c in convs)
    assert parsed.build() is not None
    assert parsed.complaints == []


def test_the_collector_does_hear_complaints():
    # A UINT8 zero point is only warned of, and is then read as INT8.
    weights = [
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert Parsed(model.SerializeToString()).complaints


@pytest.mark.export
def test_smt_t_keeps_its_node_budget_and_the_parser_takes_it():
    model = tiny_graphs.smt_t()
    check_graph(model)
    assert len(model.graph) <= 360
    parsed = Parsed(typed_bytes(model, "fp16"))
    assert parsed.taken
    assert parsed.complaints == []
