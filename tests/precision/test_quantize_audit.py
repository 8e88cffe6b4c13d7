"""Every contradiction between the list and the graph is found, whoever made it."""

import numpy as np
import pytest
import tiny_graphs
from onnx import TensorProto, helper, numpy_helper
from quantized_graphs import makers_of, nodes_of, quantized
from weights import golden_input

from sam_deploy.errors import PrecisionError
from sam_deploy.precision import audit_precision, to_fp16
from sam_deploy.precision.quantize.audit import qdq_problems

LAYER = "block2.0.mlp.fc1/Conv"


@pytest.fixture(scope="module")
def honest():
    made, report = quantized(tiny_graphs.graph(), {"input": golden_input(4, 3, *tiny_graphs.SIZE)})
    model = tiny_graphs.ir.from_proto(made)
    to_fp16(model)
    return tiny_graphs.ir.to_proto(model).SerializeToString(), report


@pytest.fixture
def graph(honest):
    return tiny_graphs.onnx.load_from_string(honest[0])


@pytest.fixture
def report(honest):
    return honest[1]


def findings(graph, report, dtype=TensorProto.INT8):
    listed = {layer.name for layer in report.layers}
    return list(qdq_problems(graph, listed, dtype))


def constant(graph, name):
    return next(weight for weight in graph.initializer if weight.name == name)


def pair_of(graph, place=0):
    """Q, DQ and the names of their constants, of an input of LAYER."""
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[place]]
    return makers_of(graph).get(dq.input[0]), dq


def set_constant(graph, name, values):
    weight = constant(graph.graph, name)
    weight.CopyFrom(numpy_helper.from_array(np.asarray(values), name))


def refused(graph, report):
    with pytest.raises(PrecisionError) as caught:
        audit_precision(graph, "int8", quantization=report)
    return str(caught.value)


def test_an_honest_graph_passes(graph, report):
    assert findings(graph, report) == []
    found = audit_precision(graph, "int8", quantization=report)
    assert found.quantization == report


def test_a_uint8_zero_point_is_found(graph, report):
    q, dq = pair_of(graph)
    set_constant(graph, dq.input[2], np.uint8(0))
    said = findings(graph, report)
    assert said == [f"{n.name} has a zero point of type UINT8, expected INT8" for n in (q, dq)]
    assert "UINT8" in refused(graph, report) or "contradict" in refused(graph, report)


def test_a_graph_all_in_uint8_is_found(graph, report):
    _, dq = pair_of(graph)
    zeros = {node.input[2] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    for name in zeros:
        set_constant(graph, name, np.uint8(0))
    said = f"{dq.name} has a zero point of type UINT8, expected INT8"
    assert said in findings(graph, report)
    assert said.partition(" ")[2] in refused(graph, report)


@pytest.mark.parametrize("place", [0, 1])
def test_a_zero_point_that_is_not_zero_is_found(graph, report, place):
    _, dq = pair_of(graph, place)
    zero = numpy_helper.to_array(constant(graph.graph, dq.input[2])).copy()
    zero[...] = 0
    zero.flat[-1] = 3
    set_constant(graph, dq.input[2], zero)
    assert f"{dq.name} has a zero point that is not 0" in refused(graph, report)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("place", [0, 1])
def test_a_scale_that_is_no_positive_number_is_found(graph, report, place, bad):
    _, dq = pair_of(graph, place)
    scale = numpy_helper.to_array(constant(graph.graph, dq.input[1])).copy()
    scale.flat[-1] = bad
    set_constant(graph, dq.input[1], scale)
    assert f"{dq.name} has a scale that is not a positive number" in refused(graph, report)


def test_a_scale_that_is_computed_is_found(graph, report):
    _, dq = pair_of(graph)
    weight = constant(graph.graph, dq.input[1])
    value = numpy_helper.from_array(numpy_helper.to_array(weight), "value")
    name = weight.name
    graph.graph.initializer.remove(weight)
    node = helper.make_node("Constant", [], [name], "odd/Constant", value=value)
    graph.graph.node.insert(0, node)
    assert f"{dq.name} has no constant scale and zero point" in refused(graph, report)


@pytest.mark.parametrize("place", [0, 1])
def test_a_listed_layer_with_a_float_input_is_found(graph, report, place):
    q, dq = pair_of(graph, place)
    if place:
        half = numpy_helper.to_array(constant(graph.graph, dq.input[0])).astype(np.float16)
        graph.graph.initializer.append(numpy_helper.from_array(half, "plain"))
    nodes_of(graph)[LAYER].input[place] = "plain" if place else q.input[0]
    assert f"{LAYER} is listed as quantized, and an input of it is not" in refused(graph, report)


def test_a_quantized_layer_that_is_not_listed_is_found(graph, report):
    layers = [layer for layer in report.layers if layer.name != LAYER]
    fewer = type(report)(calibration=report.calibration, layers=layers, smoothed=0, macs=0.5)
    assert f"{LAYER} reads a quantized value and is not listed" in refused(graph, fewer)


def test_a_norm_that_reads_a_quantized_value_is_found(graph, report):
    _, dq = pair_of(graph)
    node = helper.make_node("Relu", [dq.output[0]], ["odd"], "odd/Relu")
    graph.graph.node.append(node)
    assert "odd/Relu reads a quantized value and is not listed" in refused(graph, report)


def test_a_listed_layer_that_is_not_there_is_found(graph, report):
    nodes_of(graph)[LAYER].name = "other/Conv"
    said = refused(graph, report)
    assert f"{LAYER} is listed as quantized and is not in the graph" in said
    assert "other/Conv reads a quantized value and is not listed" in said


def test_int8_where_fp8_was_asked_is_found(graph, report):
    said = findings(graph, report, TensorProto.FLOAT8E4M3FN)
    assert any("has a zero point of type INT8, expected FLOAT8E4M3FN" in text for text in said)


def test_a_float_layer_in_fp32_is_found(graph, report):
    plain, report = quantized(tiny_graphs.graph(), {"input": golden_input(2, 3, *tiny_graphs.SIZE)})
    assert "computes in fp32, expected fp16" in refused(plain, report)
