"""Which layers are quantized: by kind, by path, and what does not fit is refused."""

import numpy as np
import pytest
import tiny_graphs
from quantized_graphs import Net, quantized
from weights import golden_input

from sam_deploy.errors import PrecisionError
from sam_deploy.precision.quantize import layers_to_quantize, weighted_layers
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import Island


def chosen(kind="classifier", islands=(), **policy):
    layers = weighted_layers(tiny_graphs.graph(kind).graph)
    return {layer.name for layer in layers_to_quantize(layers, Quantization(**policy), islands)}


def all_below(path):
    layers = weighted_layers(tiny_graphs.graph().graph)
    return {layer.name for layer in layers if layer.path.startswith(f"{path}.")}


def test_groups_move_either_way():
    usual = chosen()
    assert usual
    assert chosen(keep=["block2"]) == usual - all_below("block2")
    assert chosen(quantize=["block2"]) == usual | all_below("block2")
    assert all_below("block2") - usual  # the depthwise ones
    assert chosen(quantize=["head"]) - usual == {"head/Gemm"}


def test_the_longest_path_decides():
    usual, mlp = chosen(), all_below("block2.0.mlp")
    assert chosen(keep=["block2"], quantize=["block2.0.mlp"]) == (usual - all_below("block2")) | mlp
    assert chosen(quantize=["block2"], keep=["block2.0.mlp"]) == (usual | all_below("block2")) - mlp


def test_a_path_is_no_prefix_of_letters():
    with pytest.raises(PrecisionError, match="'block'"):
        chosen(keep=["block"])


@pytest.mark.parametrize("where", ["keep", "quantize"])
@pytest.mark.parametrize("path", ["nowhere", "norm1", "block1.0.norm1", "head/Conv"])
def test_an_unknown_path_is_refused_with_known_ones(where, path):
    with pytest.raises(PrecisionError, match=r"names '.*', which holds no layer.*patch_embed1"):
        chosen(**{where: [path]})


def test_a_node_can_be_named():
    assert chosen() - chosen(keep=["block1.0.mlp.fc1/Conv"]) == {"block1.0.mlp.fc1/Conv"}


def test_an_island_stays_in_floats():
    island = [Island(match="block2.0", reason="a test")]
    assert chosen() - chosen(islands=island) == chosen() & all_below("block2.0")


def test_nothing_left_is_refused():
    for policy in ({"kinds": []}, {"kinds": ["first"], "keep": ["patch_embed1"]}):
        with pytest.raises(PrecisionError, match="nothing to quantize"):
            chosen(**policy)


def test_kinds():
    kinds = {layer.name: layer.kind for layer in weighted_layers(tiny_graphs.graph().graph)}
    assert kinds["patch_embed1.conv.0/Conv"] == "first"
    assert kinds["head/Gemm"] == "head"
    assert kinds["patch_embed2.proj/Conv"] == "conv"
    assert kinds["block1.0.mlp.fc1/Conv"] == "linear"
    assert kinds["block1.0.attn.proj0/Conv"] == "grouped"
    assert kinds["block1.0.mlp.dwconv/Conv"] == "depthwise"
    assert set(kinds.values()) == {"first", "head", "conv", "linear", "depthwise", "grouped"}
    for kind in set(kinds.values()):
        assert chosen(kinds=[kind]) == {name for name, its in kinds.items() if its == kind}


@pytest.mark.long
def test_a_head_is_one_through_softmax_and_reshapes():
    kinds = {
        layer.name: layer.kind for layer in weighted_layers(tiny_graphs.graph("softmax").graph)
    }
    assert [name for name, kind in kinds.items() if kind == "head"] == ["head.0/Gemm"]
    features = weighted_layers(tiny_graphs.graph("features").graph)
    assert not [layer for layer in features if layer.kind == "head"]


def test_a_grouped_convolution_stays_unless_asked():
    net = Net(8, 4, 4)
    y = net.add("Conv", "grouped", net.add("Relu", "a", "x"), net.normal(8, 4, 1, 1), group=2)
    y = net.add("Conv", "dense", y, net.normal(8, 8, 1, 1))
    x = np.random.default_rng(0).standard_normal((8, 8, 4, 4)).astype(np.float32)
    model = net.model(net.add("Relu", "b", y))
    report = quantized(model.clone(), x)[1]
    assert [(layer.name, layer.kind) for layer in report.layers] == [("dense/Conv", "linear")]
    both = quantized(model, x, quantize=["grouped"])[1].layers
    assert [layer.kind for layer in both] == ["grouped", "linear"]


def test_what_the_report_says_of_a_layer():
    _, report = quantized(tiny_graphs.graph(), {"input": golden_input(3, 3, *tiny_graphs.SIZE)})
    assert report.calibration.samples == 3
    assert report.calibration.data == "npz"
    assert all(layer.input_range > 0 for layer in report.layers)
    assert {layer.name for layer in report.layers} == chosen()
