"""Explicit quantization: what stands in the graph, and that its numbers are those of ONNX."""

import numpy as np
import onnx
import pytest
import tiny_graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from quantized_graphs import Net, makers_of, nodes_of, quantized, relative_rms, run, weights_of
from weights import golden_input

from sam_deploy.precision import audit_precision, to_fp16

pytestmark = pytest.mark.long

STORED = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
LARGEST = {"int8": 127.0, "fp8": 448.0}


def dequantized(proto, layer, place):
    """The DequantizeLinear that input `place` of a layer comes from, and its constants."""
    node = makers_of(proto)[nodes_of(proto)[layer].input[place]]
    assert node.op_type == "DequantizeLinear"
    constants = {weight.name: weight for weight in proto.graph.initializer}
    return node, [constants.get(name) for name in node.input]


def stored_weight(proto, layer):
    """A quantized layer's weight as ONNX's reference implementation dequantizes it."""
    node, constants = dequantized(proto, layer, 1)
    graph = onnx.helper.make_graph(
        [node], "one", [], [onnx.helper.make_tensor_value_info(node.output[0], 1, None)], constants
    )
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import)
    return ReferenceEvaluator(model).run(None, {})[0]


def tiny(precision, **policy):
    x = golden_input(6, 3, *tiny_graphs.SIZE)
    proto = tiny_graphs.proto()
    made, report = quantized(tiny_graphs.graph(), {"input": x}, precision, **policy)
    return x, proto, made, report


@pytest.fixture(scope="module", params=["int8", "fp8"])
def case(request):
    return (request.param, *tiny(request.param))


def test_every_listed_layer_has_the_form_that_tensorrt_takes(case):
    precision, _, _, made, report = case
    onnx.checker.check_model(made, full_check=True)
    nodes = nodes_of(made)
    for layer in report.layers:
        (_, (_, scale, zero)), (dq, (stored, scales, zeros)) = (
            dequantized(made, layer.name, place) for place in (0, 1)
        )
        assert list(scale.dims) == list(zero.dims) == []
        axis = next(a.i for a in dq.attribute if a.name == "axis")
        assert list(scales.dims) == list(zeros.dims) == [stored.dims[axis]]
        for tensor in (zero, zeros):
            assert tensor.data_type == STORED[precision]
            assert not numpy_helper.to_array(tensor).astype(np.float32).any()
        assert stored.data_type == STORED[precision]
        q = makers_of(made)[dequantized(made, layer.name, 0)[0].input[0]]
        assert q.op_type == "QuantizeLinear"
        assert list(q.input[1:]) == list(dequantized(made, layer.name, 0)[0].input[1:])
        for name in nodes[layer.name].input[2:]:  # the bias
            assert weights_of(made)[name].dtype == np.float32
    counts = [node.op_type for node in made.graph.node]
    assert counts.count("DequantizeLinear") == counts.count("QuantizeLinear") + len(report.layers)


def test_only_dense_layers_inside_are_quantized_by_default(case):
    _, _, proto, made, report = case
    listed = {layer.name for layer in report.layers}
    before, constants = nodes_of(proto), weights_of(proto)
    outside = set()
    for name, node in before.items():
        weighted = node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        ends = "input" in node.input or name == "head/Gemm"
        assert (name in listed) == (weighted and groups == 1 and not ends), name
        outside.add(node.op_type) if name not in listed else None
    assert {"LayerNormalization", "Softmax", "Gelu", "MatMul", "Conv", "Add"} <= outside
    reads = {name for node in made.graph.node if node.name not in listed for name in node.input}
    assert not reads & {n.output[0] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    assert 0.3 < report.macs < 1


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_onnxs_own_numbers_are_the_weights_to_half_a_step(precision):
    _, proto, made, report = tiny(precision, smooth=0, rounding="nearest")
    plain = weights_of(proto)
    for layer in report.layers:
        weight = plain[nodes_of(proto)[layer.name].input[1]]
        dq, (_, scales, _) = dequantized(made, layer.name, 1)
        axis = next(a.i for a in dq.attribute if a.name == "axis")
        scale = numpy_helper.to_array(scales)
        scale = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        # the steps of E4M3 between 256 and 448 are 32
        half = scale * (0.5 if precision == "int8" else 16)
        assert (np.abs(stored_weight(made, layer.name) - weight) <= 1.001 * half).all()


def test_onnxruntime_and_the_reference_agree(case):
    precision, x, proto, made, _ = case
    expected = run(proto, x[:1], "input")[0]
    ours = run(made, x[:1], "input")[0]
    reference = ReferenceEvaluator(made).run(None, {"input": x[:1]})[0]
    assert relative_rms(ours, reference) < 0.05  # a value on an edge may be rounded either way
    assert 1e-4 < relative_rms(ours, expected) < (0.1 if precision == "int8" else 0.2)


def test_with_fp16_beside_it_the_graph_is_audited(case):
    precision, _, _, made, report = case
    model = tiny_graphs.ir.from_proto(made)
    to_fp16(model)
    proto = tiny_graphs.ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    found = audit_precision(proto, precision, quantization=report)
    assert found.types_by_op["Conv"][precision] + found.types_by_op["Conv"]["fp16"] == 48
    constants = weights_of(proto)
    for name, scale in weights_of(made).items():  # the same scales, to the bit
        if "scale" in name:
            assert constants[name].dtype == np.float16
            np.testing.assert_array_equal(constants[name].astype(np.float32), scale)


def layer_net(kind, seed=0, factor=1.0, shared=False):
    """Relu, a layer of `kind` with channels of very different size, Relu."""
    size = {"Conv": (4, 3, 3), "Grouped": (4, 3, 3), "ConvTranspose": (4, 3, 3)}.get(kind, (4,))
    net = Net(*size, seed=seed)
    y = net.add("Relu", "before", "x")
    shape = {"Conv": (6, 4, 3, 3), "Grouped": (6, 2, 3, 3), "ConvTranspose": (4, 6, 3, 3)}
    shape |= {"Gemm": (4, 6), "GemmB": (6, 4), "MatMul": (4, 6)}
    axis = 0 if kind in ("Conv", "Grouped", "GemmB") else 1
    values = np.random.default_rng(seed).standard_normal(shape[kind])
    channels = np.moveaxis(values, axis, 0)
    channels *= factor * np.array([1e-6, 1e-3, 1, 30, 0, 1]).reshape(-1, *[1] * (values.ndim - 1))
    weight = net.weight(values)
    options = {"Grouped": {"group": 2}, "GemmB": {"transB": 1}}.get(kind, {})
    op = {"Grouped": "Conv", "GemmB": "Gemm"}.get(kind, kind)
    y1 = net.add(op, "fc", y, weight, **options)
    ends = [net.add("Relu", "after", y1)]
    if shared:
        ends.append(net.add("Relu", "again", net.add(op, "fc2", y, weight, **options)))
    x = np.random.default_rng(seed + 1).standard_normal((16, *size)).astype(np.float32)
    return net.model(*ends), values.astype(np.float32), axis, f"fc/{op}", x


LAYERS = ["Conv", "Grouped", "ConvTranspose", "Gemm", "GemmB", "MatMul"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), factor=st.sampled_from([1e-4, 1.0, 1e3]), shared=st.booleans())
@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("kind", LAYERS)
def test_weights_of_every_form_keep_every_channel(kind, precision, seed, factor, shared):
    model, values, axis, name, x = layer_net(kind, seed, factor, shared)
    made, _ = quantized(
        model, x, precision, smooth=0, rounding="nearest", quantize=["fc", "fc2"][: 1 + shared]
    )
    onnx.checker.check_model(made, full_check=True)
    names = [name, name.replace("fc", "fc2")][: 1 + shared]
    for layer in names:
        stored = np.moveaxis(stored_weight(made, layer), axis, 0)
        for row, wanted in zip(stored, np.moveaxis(values, axis, 0), strict=True):
            # never worse than a few steps of the type, or of FP16 where that is coarser
            step = np.abs(wanted).max() / (LARGEST[precision] if precision == "int8" else 16)
            assert np.sqrt(np.mean(np.square(row - wanted))) <= 1.5 * max(step, 6e-8)
            assert row.any() or np.abs(wanted).max() < 6e-8  # which FP16 would lose too
    assert sum("weight1" in n or "weight0" in n for n in weights_of(made)) == 3 * len(names)


def test_a_shared_weight_that_another_layer_reads_in_floats_stays():
    model, values, _, name, x = layer_net("Gemm", shared=True)
    made, report = quantized(model, x, keep=["fc2"], smooth=0)
    assert [layer.name for layer in report.layers] == [name]
    np.testing.assert_array_equal(weights_of(made)[nodes_of(made)["fc2/Gemm"].input[1]], values)


def test_layers_of_one_activation_share_its_pair():
    net = Net(4)
    y = net.add("Relu", "before", "x")
    ends = [net.add("Relu", f"e{i}", net.add("MatMul", f"m{i}", y, net.normal(4, 4))) for i in "ab"]
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    made, _ = quantized(net.model(*ends), x)
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == 1
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)


def test_a_layer_right_on_the_input():
    net = Net(4)
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    model = net.model(net.add("Relu", "end", net.add("MatMul", "fc", "x", net.normal(4, 4))))
    expected = run(model, x)[0]
    made, _ = quantized(model, x)
    assert relative_rms(run(made, x)[0], expected) < 0.02


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_activations_that_are_all_zero(precision):
    net = Net(4)
    x = -np.ones((8, 4), np.float32)
    y = net.add("MatMul", "fc", net.add("Relu", "zero", "x"), net.normal(4, 4))
    made, _ = quantized(net.model(net.add("Relu", "end", y)), x, precision)
    assert not run(made, x)[0].any()
