"""INT8 for CPUs: ONNX Runtime takes every listed layer for one of integers, on every processor."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from quantized_graphs import Net, makers_of, nodes_of, quantized, relative_rms, run, weights_of
from weights import golden_input

from sam_deploy.errors import PrecisionError
from sam_deploy.precision import audit_precision
from sam_deploy.precision.quantize.audit_around import around_problems

LAYER = "block2.0.mlp.fc1/Conv"


def for_cpu(model, x, **policy):
    return quantized(model, x, target="cpu", **policy)


@pytest.fixture(scope="module")
def tiny():
    x = golden_input(6, 3, *tiny_graphs.SIZE)
    made, report = for_cpu(tiny_graphs.graph(), {"input": x})
    return x, made.SerializeToString(), report


@pytest.fixture
def graph(tiny):
    return onnx.load_from_string(tiny[1])


def optimized(proto, folder):
    """What ONNX Runtime's CPU provider makes of a graph, and a session to run it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(folder / "optimized.onnx"), session


def test_all_but_the_head_run_as_integers(tiny, graph, tmp_path):
    x, _, report = tiny
    onnx.checker.check_model(graph, full_check=True)
    made, session = optimized(graph, tmp_path)
    ops = [node.op_type for node in made.graph.node]
    assert ops.count("QLinearConv") == len(report.layers) > 30
    assert "Conv" not in ops
    assert {layer.kind for layer in report.layers} == {
        "linear", "conv", "depthwise", "grouped", "first",
    }  # fmt: skip
    assert report.macs > 0.9
    expected = run(tiny_graphs.proto(), x, "input")[0]
    assert relative_rms(session.run(None, {"input": x})[0], expected) < 0.04


def test_onnxs_reference_and_the_integer_kernels_agree(tiny, graph, tmp_path):
    x = tiny[0][:2]
    expected = ReferenceEvaluator(graph).run(None, {"input": x})[0]
    found = optimized(graph, tmp_path)[1].run(None, {"input": x})[0]
    assert relative_rms(found, expected) < 0.02  # roundings of a half, one step apart


def dense_net(kind, weight, bias=None, group=1):
    """Identity-like ends around one layer, so that it stands in the middle of a graph."""
    rank = {"Conv": (weight.shape[1] * group, 5, 5)}.get(kind, (weight.shape[0],))
    net = Net(*rank)
    y = net.add("Relu", "before", "x")
    inputs = [y, net.weight(weight)] + ([] if bias is None else [net.weight(bias)])
    options = {"group": group} if kind == "Conv" else {}
    return net.model(net.add("Relu", "after", net.add(kind, "fc", *inputs, **options)))


@pytest.mark.parametrize("kind", ["Conv", "MatMul", "Gemm"])
def test_the_largest_products_do_not_saturate(kind, tmp_path):
    """Without VNNI a processor adds pairs of products in 16 bits: the worst that there can be."""
    shape = (8, 64, 1, 1) if kind == "Conv" else (64, 8)
    model = dense_net(kind, np.ones(shape, np.float32))
    x = np.ones((4, 64, 5, 5) if kind == "Conv" else (4, 64), np.float32)
    made, _ = for_cpu(model, x, smooth=0)
    largest = max(np.abs(w).max() for n, w in weights_of(made).items() if n.endswith(".int8"))
    assert largest == 64
    fused, session = optimized(made, tmp_path)
    assert not {"Conv", "MatMul", "Gemm"} & {node.op_type for node in fused.graph.node}
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 64.0, rtol=0.01)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["Conv", "Depthwise", "Grouped", "MatMul", "Gemm"]),
    seed=st.integers(0, 999),
    spread=st.sampled_from([1.0, 30.0]),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_every_form_of_layer_keeps_what_it_makes(kind, seed, spread, size, tmp_path_factory):
    random = np.random.default_rng(seed)
    group = {"Depthwise": 8, "Grouped": 2}.get(kind, 1)
    op = "Conv" if kind in ("Depthwise", "Grouped") else kind
    shape = (16, 8 // group, 3, 3) if op == "Conv" else (8, 16)
    weight = random.standard_normal(shape)
    outputs = np.moveaxis(weight, 0 if op == "Conv" else 1, 0)
    outputs *= random.uniform(1, spread, 16).reshape(-1, *[1] * (weight.ndim - 1))
    bias = None if op == "MatMul" else size * random.standard_normal(16).astype(np.float32)
    model = dense_net(op, (size * weight).astype(np.float32), bias, group)
    x = random.standard_normal((16, 8, 5, 5) if op == "Conv" else (64, 8)).astype(np.float32)
    expected = run(model, x)[0]
    made, _ = for_cpu(model, x, smooth=0)
    onnx.checker.check_model(made, full_check=True)
    found = optimized(made, tmp_path_factory.mktemp("fused"))[1].run(None, {"x": x})[0]
    assert relative_rms(found, expected) < 0.05


def test_a_bias_that_dwarfs_its_weights_stays(tmp_path):
    weight = np.full((2, 4, 1, 1), 1e-9, np.float32)
    model = dense_net("Conv", weight, np.float32([5, 0.5]))
    x = np.ones((4, 4, 5, 5), np.float32)
    found = optimized(for_cpu(model, x, smooth=0)[0], tmp_path)[1].run(None, {"x": x})[0]
    np.testing.assert_allclose(found[:, 0], 5, rtol=0.01)
    np.testing.assert_allclose(found[:, 1], 0.5, rtol=0.02)


def test_activations_that_are_all_zero(tmp_path):
    x = -np.ones((4, 4, 5, 5), np.float32)
    made, _ = for_cpu(dense_net("Conv", np.ones((2, 4, 1, 1), np.float32)), x)
    assert not optimized(made, tmp_path)[1].run(None, {"x": x})[0].any()


def test_layers_in_a_row_and_side_by_side_share_their_pairs():
    net = Net(4)
    first = net.add("MatMul", "a", net.add("Relu", "before", "x"), net.normal(4, 4))
    ends = [net.add("MatMul", name, first, net.normal(4, 4)) for name in "bc"]
    model = net.model(*[net.add("Relu", f"e{i}", end) for i, end in enumerate(ends)])
    made, _ = for_cpu(model, np.random.default_rng(0).random((8, 4), np.float32))
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == 4  # x, a, b, c


def test_a_layer_that_makes_an_output_makes_floats():
    net = Net(4)
    y = net.add("MatMul", "a", net.add("Relu", "before", "x"), net.normal(4, 4))
    model = net.model(net.add("MatMul", "head", y, net.normal(4, 4)))
    x = np.random.default_rng(0).random((8, 4), np.float32)
    made, report = for_cpu(model, x, quantize=["head"])
    assert [layer.name for layer in report.layers] == ["a/MatMul"]
    audit_precision(made, "int8", quantization=report)
    assert relative_rms(run(made, x)[0], run(model, x)[0]) < 0.03


def test_what_cpus_have_no_integers_for_stays_in_floats():
    net = Net(4, 5, 5)
    y = net.add("Conv", "a", net.add("Relu", "before", "x"), net.normal(4, 4, 3, 3))
    y = net.add("Relu", "mid", y)
    model = net.model(
        net.add("Relu", "end", net.add("ConvTranspose", "b", y, net.normal(4, 4, 3, 3)))
    )
    _, report = for_cpu(model, np.random.default_rng(0).random((8, 4, 5, 5), np.float32))
    assert [layer.name for layer in report.layers] == ["a/Conv"]


@pytest.mark.parametrize("shape", [(1, 4), (1,), ()])
def test_a_bias_that_is_not_one_an_output_keeps_its_layer_in_floats(shape):
    net = Net(4)
    y = net.add("MatMul", "a", net.add("Relu", "before", "x"), net.normal(4, 4))
    y = net.add("Gemm", "b", net.add("Relu", "mid", y), net.normal(4, 4), net.normal(*shape))
    x = np.random.default_rng(0).random((8, 4), np.float32)
    made, report = for_cpu(net.model(net.add("Relu", "end", y)), x)
    assert [layer.name for layer in report.layers] == ["a/MatMul"]
    audit_precision(made, "int8", quantization=report)


def test_what_is_read_inside_and_is_an_output_too():
    net = Net(4)
    first = net.add("MatMul", "a", net.add("Relu", "before", "x"), net.normal(4, 4))
    again = net.add("Add", "twice", first, first)
    last = net.add("Relu", "end", net.add("MatMul", "b", first, net.normal(4, 4)))
    x = np.random.default_rng(0).random((8, 4), np.float32)
    model = net.model(first, again, last)
    expected = run(model, x)
    made, report = for_cpu(model, x, kinds=["linear", "head", "first"])
    audit_precision(made, "int8", quantization=report)
    assert [layer.name for layer in report.layers] == ["b/MatMul"]
    for found, wanted in zip(run(made, x), expected, strict=True):
        assert relative_rms(found, wanted) < 0.05


def test_a_gemm_that_scales_stays_in_floats():
    net = Net(4)
    y = net.add("MatMul", "a", net.add("Relu", "before", "x"), net.normal(4, 4))
    y = net.add("Gemm", "b", net.add("Relu", "mid", y), net.normal(4, 4), alpha=0.5)
    x = np.random.default_rng(0).random((8, 4), np.float32)
    _, report = for_cpu(net.model(net.add("Relu", "end", y)), x)
    assert [layer.name for layer in report.layers] == ["a/MatMul"]


def test_the_product_of_two_layers_is_no_layer():
    """As of attention: what a layer makes is the second input of a MatMul."""
    net = Net(4, 4)
    y = net.add("Relu", "before", "x")
    q, v = (net.add("MatMul", name, y, net.normal(4, 4)) for name in "qv")
    x = np.random.default_rng(0).random((8, 4, 4), np.float32)
    made, report = for_cpu(net.model(net.add("Relu", "end", net.add("MatMul", "product", q, v))), x)
    assert len(report.layers) == 2
    audit_precision(made, "int8", quantization=report)


def findings(graph, report):
    return list(around_problems(graph, {layer.name for layer in report.layers}))


def constant(graph, name, values):
    weight = next(weight for weight in graph.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(np.asarray(values), name))


def test_an_honest_graph_passes(tiny, graph):
    assert findings(graph, tiny[2]) == []
    report = audit_precision(graph, "int8", quantization=tiny[2])
    assert set(report.types_by_op["Conv"]) == {"int8"}
    assert set(report.types_by_op["LayerNormalization"]) == {"fp32"}


def float_input(graph):
    node = nodes_of(graph)[LAYER]
    q = makers_of(graph)[makers_of(graph)[node.input[0]].input[0]]
    node.input[0] = q.input[0]


def float_output(graph):
    output = nodes_of(graph)[LAYER].output[0]
    q = next(node for node in graph.graph.node if output in node.input)
    dq = next(node for node in graph.graph.node if q.output[0] in node.input)
    reader = next(node for node in graph.graph.node if dq.output[0] in node.input)
    reader.input[list(reader.input).index(dq.output[0])] = output


def saturating(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[1]]
    units = weights_of(graph)[dq.input[0]].copy()
    units.flat[0] = 127
    constant(graph, dq.input[0], units)


def shifted_weight(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[1]]
    constant(graph, dq.input[2], np.ones_like(weights_of(graph)[dq.input[2]]))


def float_bias(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[2]]
    values = weights_of(graph)[dq.input[0]] * weights_of(graph)[dq.input[1]]
    graph.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), "floats"))
    nodes_of(graph)[LAYER].input[2] = "floats"


def other_scale(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[0]]
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(9), "nine"))
    dq.input[1] = "nine"


def other_bias_scale(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[2]]
    constant(graph, dq.input[1], 2 * weights_of(graph)[dq.input[1]])


def other_axis(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[1]]
    next(a for a in dq.attribute if a.name == "axis").i = 1


def computed_weight(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[1]]
    copy = helper.make_node("Identity", [dq.input[0]], ["copied"], "copy/Identity")
    graph.graph.node.insert(0, copy)
    dq.input[0] = "copied"


def negative_scale(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[0]]
    constant(graph, dq.input[1], np.float32(-1))


def signed_activation(graph):
    dq = makers_of(graph)[nodes_of(graph)[LAYER].input[0]]
    constant(graph, dq.input[2], np.int8(0))


def quantized_gelu(graph):
    gelu = next(i for i, node in enumerate(graph.graph.node) if node.op_type == "Gelu")
    value = graph.graph.node[gelu].output[0]
    names = ["more_scale", "more_zero"]
    for name, array in zip(names, (np.float32(0.1), np.uint8(3)), strict=True):
        graph.graph.initializer.append(numpy_helper.from_array(array, name))
    pair = [
        helper.make_node("QuantizeLinear", [value, *names], ["more_q"], "more/QuantizeLinear"),
        helper.make_node("DequantizeLinear", ["more_q", *names], ["more"], "more/DequantizeLinear"),
    ]
    add = helper.make_node("Relu", ["more"], ["unread"], "more/Relu")
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes[: gelu + 1], *pair, add, *nodes[gelu + 1 :]])


SABOTAGE = {
    float_input: "its activation is not",
    float_output: "what it makes is not",
    saturating: "weight of 127 units, at most 64",
    shifted_weight: "has a zero point that is not 0",
    float_bias: "its bias is not",
    other_scale: "another scale or zero point than its DequantizeLinear",
    other_bias_scale: "bias in other units than its products",
    other_axis: "weight with scales along axis 1",
    computed_weight: "weight that is no constant",
    negative_scale: "scale that is not a positive number",
    signed_activation: "zero point of type INT8, expected UINT8",
    quantized_gelu: "is at no layer that is listed",
}


@pytest.mark.parametrize("harm", SABOTAGE, ids=lambda harm: harm.__name__)
def test_every_contradiction_is_found(tiny, graph, harm):
    harm(graph)
    assert any(SABOTAGE[harm] in finding for finding in findings(graph, tiny[2]))


def test_a_list_that_is_not_the_graphs_is_found(tiny, graph):
    names = {layer.name for layer in tiny[2].layers}
    (more,) = around_problems(graph, {*names, "gone/Conv"})
    assert more == "gone/Conv is listed as quantized and is not in the graph"
    assert f"{LAYER} reads a quantized weight and is not listed as quantized" in list(
        around_problems(graph, names - {LAYER})
    )


def test_fp16_beside_it_is_refused(tiny, graph):
    node = nodes_of(graph)["block2.0.mlp.act/Gelu"]
    casts = [
        helper.make_node("Cast", [node.input[0]], ["half"], "in/Cast", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half_out"], [node.output[0]], "out/Cast", to=TensorProto.FLOAT),
    ]
    node.input[0], node.output[0] = "half", "half_out"
    nodes = list(graph.graph.node)
    place = nodes.index(node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes[:place], casts[0], node, casts[1], *nodes[place + 1 :]])
    with pytest.raises(PrecisionError, match=r"Gelu computes in fp16, expected fp32"):
        audit_precision(graph, "int8", quantization=tiny[2])
