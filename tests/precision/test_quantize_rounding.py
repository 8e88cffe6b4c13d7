"""Weights rounded together: the rows that a layer reads, and the error of what it gives."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_graphs import Net

from sam_deploy.precision.quantize import FP8, INT8, places_of, quantized_weight, weighted_layers
from sam_deploy.precision.quantize.observed import Observed
from sam_deploy.precision.quantize.rounding import rounded_together

pytestmark = pytest.mark.long

ALL = 10**6


def correlated(rows, columns, seed=0):
    """Rows whose columns go together, as the channels of a network do."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((rows, max(columns // 4, 1)))
    mixed = hidden @ random.standard_normal((hidden.shape[1], columns))
    return mixed + 0.1 * random.standard_normal((rows, columns))


def output_error(units, weight, scale, x):
    return np.square(x @ (units.astype(np.float64) * scale[:, None] - weight).T).mean()


@pytest.mark.parametrize("grid", [INT8, FP8], ids=["int8", "fp8"])
@given(outputs=st.integers(4, 20), inputs=st.integers(64, 300), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_output_is_closer_than_with_each_weight_at_its_nearest(grid, outputs, inputs, seed):
    x = correlated(4 * inputs, inputs, seed)
    weight = np.random.default_rng(seed + 1).standard_normal((outputs, inputs))
    scale = np.abs(weight).max(axis=1) / grid.largest
    together = rounded_together(weight, scale, x.T @ x / len(x), grid)
    nearest = grid.quantized(weight / scale[:, None])
    assert together.dtype == nearest.dtype
    assert output_error(together, weight, scale, x) < output_error(nearest, weight, scale, x)


def test_inputs_that_have_nothing_in_common_leave_every_weight_at_its_nearest():
    weight = np.random.default_rng(0).standard_normal((8, 150))
    scale = np.abs(weight).max(axis=1) / 127
    moments = np.diag(np.random.default_rng(1).uniform(0.1, 10, 150))
    nearest = INT8.quantized(weight / scale[:, None])
    assert (rounded_together(weight, scale, moments, INT8) == nearest).all()


@pytest.mark.parametrize("moments", [np.zeros((6, 6)), np.diag([1.0, 0, 0, 2, 0, 0])])
def test_inputs_that_are_always_zero_cause_no_trouble(moments):
    weight = np.random.default_rng(0).standard_normal((3, 6))
    scale = np.abs(weight).max(axis=1) / 127
    made = rounded_together(weight, scale, moments, INT8)
    assert np.abs(made * scale[:, None] - weight).max() < 2 * scale.max()


def conv(channels=3, outputs=4, kernel=(3, 3), **attributes):
    net = Net(channels, 9, 11)
    weight = net.normal(outputs, channels, *kernel)
    graph = net.model(net.add("Conv", "conv", net.given.name, weight, **attributes)).graph
    (layer,) = weighted_layers(graph)
    return layer


@given(
    channels=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 2),
)
@settings(max_examples=40, deadline=None)
def test_a_convolutions_rows_times_its_weights_are_its_output(channels, kernel, strides, pads):
    ends = [*pads, *pads]  # PyTorch pads both sides alike
    layer = conv(channels, kernel=kernel, strides=list(strides), pads=ends)
    x = np.random.default_rng(0).standard_normal((2, channels, 9, 11)).astype(np.float32)
    weight = layer.weight.const_value.numpy()
    rows = places_of(layer).rows(x, ALL)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x).double(), torch.tensor(weight).double(), None, strides, pads
    )
    made = rows @ weight.reshape(len(weight), -1).T.astype(np.float64)
    np.testing.assert_allclose(
        made, expected.permute(0, 2, 3, 1).reshape(len(made), -1).numpy(), atol=1e-9
    )
    few = places_of(layer).rows(x, 7)
    assert len(few) <= 7
    assert {row.tobytes() for row in few} <= {row.tobytes() for row in rows}


@pytest.mark.parametrize(
    "attributes", [{"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}, {"group": 1, "channels": 500}]
)
def test_what_is_no_matrix_over_windows_is_rounded_to_nearest(attributes):
    layer = conv(**attributes)
    assert places_of(layer) is None
    weight = layer.weight.const_value.numpy()
    made = quantized_weight(layer, INT8, Observed().moments(None))
    assert np.abs(made.units * made.scale[:, None, None, None] - weight).max() <= made.scale.max()


def test_memory_does_not_grow_with_the_samples():
    layer = conv()
    observed = Observed([places_of(layer)])
    shapes = set()
    for seed in range(5):
        observed.update(correlated(2, 3 * 9 * 11, seed).reshape(2, 3, 9, 11).astype(np.float32))
        shapes.add((observed.moments(places_of(layer)).shape, observed.histogram.counts.shape))
    assert len(shapes) == 1


def test_a_layers_moments_are_those_of_all_its_rows():
    layer = conv(pads=[1, 1, 1, 1])
    x = correlated(6, 3 * 9 * 11).reshape(6, 3, 9, 11).astype(np.float32)
    places = places_of(layer)
    observed = Observed([places])
    for batch in (x[:4], x[4:]):
        observed.update(batch)
    rows = places.rows(x, ALL)
    np.testing.assert_allclose(
        observed.moments(places), rows.T @ rows / len(rows), rtol=1e-4, atol=1e-4
    )


def test_the_scale_is_the_layers_own_and_an_fp16_number():
    net = Net(8)
    values = np.random.default_rng(0).standard_normal((8, 5)) * [1e-6, 1, 1e3, 0, 1e-3]
    graph = net.model(net.add("MatMul", "layer", net.given.name, net.weight(values))).graph
    assert isinstance(graph, ir.Graph)
    (layer,) = weighted_layers(graph)
    made = quantized_weight(layer, INT8, np.eye(8))
    assert made.units.shape == (8, 5)
    assert (made.scale == made.scale.astype(np.float16)).all()
    assert (made.scale > 0).all()
    wrong = np.abs(made.units * made.scale - values).max(axis=0)
    assert (wrong <= made.scale).all()
