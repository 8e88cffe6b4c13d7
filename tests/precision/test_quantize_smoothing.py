"""Smoothing changes no function, not by a bit, and adds nothing; and it is worth it."""

import msgspec
import numpy as np
import pytest
import tiny_graphs
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from official_style import Backbone
from quantized_graphs import Net, calibrated, quantized, relative_rms, run, run_float64
from weights import golden_input

from sam_deploy.architecture import Architecture
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites import rewrite

pytestmark = pytest.mark.long


def unchanged(model, x, feed="x", **policy):
    """Smooth `model`: how many places changed. The outputs must be the same to the last bit."""
    before, nodes = run(model, x, feed), [node.name for node in model.graph]
    count = calibrated(model, {feed: x}, **policy).smoothed
    assert [node.name for node in model.graph] == nodes
    for old, new in zip(before, run(model, x, feed), strict=True):
        np.testing.assert_array_equal(old, new)
    return count


EVERYTHING = ["linear", "conv", "depthwise", "grouped", "first", "head"]


@pytest.mark.parametrize("policy", [{}, {"kinds": EVERYTHING, "smooth": 1.0}])
@pytest.mark.parametrize("kind", ["classifier", "features", "sam"])
def test_our_models_are_the_same_to_the_last_bit(kind, policy):
    example = tiny_graphs.case(kind).example[0].numpy()
    x = np.concatenate([example, golden_input(2, *example.shape[1:])])
    changed = unchanged(tiny_graphs.graph(kind), x, "input", **policy)
    assert changed or (kind == "sam" and not policy)


def test_a_network_in_the_official_style_is_too():
    torch.manual_seed(0)
    eager = Backbone(msgspec.convert(TINY, Architecture)).eval()
    example = (torch.from_numpy(golden_input(1, 3, 64, 64)),)
    static, _ = rewrite(eager, example, RewriteOptions())
    case = tiny_graphs.Case(eager, example, static, tiny_graphs.STAGES)
    assert unchanged(tiny_graphs.lower(case), golden_input(2, 3, 64, 64), "input") > 0


def block(kind, channels, outputs, *, residual=False, gated=False, outliers=30.0, seed=0):
    """LayerNorm, perhaps a gate, then a layer of `kind` on tokens of a 2 x 3 grid, then Relu."""
    net = Net(6, channels, seed=seed)
    y = net.norm("norm", "x", channels, outliers)
    if gated:
        y = net.add("Mul", "gate", net.add("Sigmoid", "gate", "x"), y)
    normed = y
    if kind == "matmul":
        y = net.add("MatMul", "fc", y, net.normal(channels, outputs))
    elif kind in ("gemm", "gemm_transposed"):
        transposed = kind == "gemm_transposed"
        shape = (outputs, channels) if transposed else (channels, outputs)
        y = net.add("Reshape", "flat", y, net.weight(np.array([-1, channels])))
        bias = net.normal(outputs)
        y = net.add("Gemm", "fc", y, net.normal(*shape), bias, transB=int(transposed))
    else:
        y = net.add("Transpose", "image", y, perm=[0, 2, 1])
        y = net.add("Reshape", "image", y, net.weight(np.array([0, channels, 2, 3])))
        group = {"conv1": 1, "conv3": 1, "depthwise": channels}[kind]
        outputs = channels if group > 1 else outputs
        side = 1 if kind == "conv1" else 3
        w = net.normal(outputs, channels // group, side, side)
        pads = [side // 2] * 4
        y = net.add("Conv", "fc", y, w, net.normal(outputs), group=group, pads=pads)
    ends = [net.add("Relu", "end", y)]
    if residual:
        ends.append(net.add("Relu", "beside", normed))
    return net.model(*ends)


KINDS = ["matmul", "gemm", "gemm_transposed", "conv1", "conv3", "depthwise"]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    channels=st.integers(2, 9),
    outputs=st.integers(1, 9),
    gated=st.booleans(),
    residual=st.booleans(),
    outliers=st.sampled_from([1.0, 30.0, 3000.0]),
    alpha=st.sampled_from([0.25, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_random_blocks_are_too(kind, channels, outputs, gated, residual, outliers, alpha, seed):
    model = block(
        kind, channels, outputs, gated=gated, residual=residual, outliers=outliers, seed=seed
    )
    x = np.random.default_rng(seed).standard_normal((5, 6, channels)).astype(np.float32)
    exact = run_float64(model, x)
    count = unchanged(model, x, smooth=alpha, quantize=["fc"])
    for old, new in zip(exact, run_float64(model, x), strict=True):
        np.testing.assert_array_equal(old, new)
    if residual:  # what else reads the activation would see it scaled
        assert count == 0
    elif outliers == 3000:
        assert count == 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_lowers_the_error_where_channels_differ(kind):
    x = np.random.default_rng(1).standard_normal((32, 6, 8)).astype(np.float32)
    errors = []
    for smooth in (0.0, 0.5):
        model = block(kind, 8, 8, outliers=200.0)
        weight = model.graph.node("fc/" + model.graph[-2].op_type).inputs[1]
        array = weight.const_value.numpy().copy()  # small where the activation is large
        axis = 0 if kind in ("matmul", "gemm", "depthwise") else 1
        np.moveaxis(array, axis, 0)[0] /= 200
        weight.const_value = tiny_graphs.ir.tensor(array, name=weight.name)
        expected = run(model, x)[0]
        proto, _ = quantized(model, x, smooth=smooth, quantize=["fc"])
        errors.append(relative_rms(run(proto, x)[0], expected))
    assert errors[1] < 0.6 * errors[0]


def test_zero_turns_it_off():
    x = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    assert unchanged(block("matmul", 8, 4), x, smooth=0) == 0


def test_a_square_is_not_scaled_twice():
    net = Net(6, 8)
    y = net.norm("norm", "x", 8, 100.0)
    y = net.add("MatMul", "fc", net.add("Mul", "square", y, y), net.normal(8, 4))
    x = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    assert unchanged(net.model(net.add("Relu", "end", y)), x) == 0


def test_two_layers_that_take_different_axes_for_channels():
    net = Net(3, 8, 8)
    y = net.add("Conv", "first", "x", net.weight(np.geomspace(1, 1e4, 24).reshape(8, 3, 1, 1)))
    conv = net.add("Conv", "columns", y, net.normal(8, 8, 1, 1))
    mixed = net.add("MatMul", "rows", y, net.normal(8, 8))
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    ends = [net.add("Relu", "a", mixed), net.add("Relu", "b", conv)]
    assert unchanged(net.model(*ends), x) == 0


@pytest.mark.parametrize("group", [8, 2])
def test_a_depthwise_or_grouped_layer_at_the_end(group):
    net = Net(8, 4, 4)
    y = net.add("Conv", "wide", "x", net.weight(np.geomspace(1, 1e4, 64).reshape(8, 8, 1, 1)))
    y = net.add("Conv", "last", y, net.normal(8, 8 // group, 3, 3), group=group, pads=[1] * 4)
    x = np.random.default_rng(0).standard_normal((4, 8, 4, 4)).astype(np.float32)
    count = unchanged(net.model(y), x, quantize=["last"])
    assert count == (1 if group == 8 else 0)


def test_a_transpose_without_an_order_reverses():
    net = Net(4, 5, 8)
    y = net.add("Transpose", "turn", net.norm("norm", "x", 8, 100.0))  # (8, 5, 4, batch)
    y = net.add("Transpose", "turn2", y)
    y = net.add("MatMul", "fc", y, net.normal(8, 4))
    x = np.random.default_rng(0).standard_normal((4, 4, 5, 8)).astype(np.float32)
    assert unchanged(net.model(net.add("Relu", "end", y)), x) == 1


def test_one_bias_for_all_channels_cannot_be_scaled():
    net = Net(8)
    y = net.add("Gemm", "a", "x", net.weight(np.geomspace(1, 1e4, 64).reshape(8, 8)), net.normal(1))
    y = net.add("Gemm", "b", y, net.normal(8, 4))
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    assert unchanged(net.model(net.add("Relu", "end", y)), x) == 0


def test_shared_weights_stay():
    net = Net(6, 8)
    shared = net.normal(8, 8)
    a = net.add("MatMul", "a", net.norm("norm1", "x", 8, 100.0), shared)
    b = net.add("MatMul", "b", net.norm("norm2", "x", 8, 100.0), shared)
    x = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    assert unchanged(net.model(net.add("Relu", "end", net.add("Add", "sum", a, b))), x) == 0
