"""What each group costs, and the largest set within a budget; the recipe remembers the choice."""

import msgspec
import numpy as np
import onnx
import pytest
import tiny_graphs
from quantized_graphs import nodes_of
from test_quantization_page import Page
from weights import golden_input

from sam_deploy.bundle import MODEL, QUANTIZATION, read_bundle
from sam_deploy.cli._save_recipe import save_recipe
from sam_deploy.errors import PrecisionError
from sam_deploy.exporter import Request, export_recipe
from sam_deploy.exporter.calibrated import calibrate
from sam_deploy.exporter.sensitivity import Sensitivity
from sam_deploy.parity import array_samples, synthetic_samples
from sam_deploy.precision.quantize import layers_to_quantize, weighted_layers
from sam_deploy.preprocess import Preprocessing
from sam_deploy.progress import Progress
from sam_deploy.recipe import read_recipe

pytestmark = pytest.mark.long

export_test = pytest.mark.export


@pytest.fixture
def sensitivity(tiny_recipe, tmp_path):
    """Makes one of a graph, by default the tiny SMT."""

    def make(graph=None, feed=None, *, batch=None, **policy):
        graph = graph or tiny_graphs.graph()
        feed = feed or {"input": golden_input(10, 3, *tiny_graphs.SIZE)}
        recipe = tiny_recipe(precision="int8", quantization=policy)
        samples = array_samples("npz", feed)
        found = calibrate(graph, recipe, [], samples, tmp_path, Progress())
        classes = "input" in feed
        made = Sensitivity(graph, found, [], samples, tmp_path, classes=classes, batch=batch)
        return graph, made

    return make


def test_every_group_is_measured_once(sensitivity):
    graph, made = sensitivity()
    costs = made.costs(Progress())
    layers = layers_to_quantize(weighted_layers(graph.graph), made.policy([]))
    assert sum(cost.layers for cost in costs) == len(layers)
    assert len({cost.group for cost in costs}) == len(costs) > 10
    distances = [cost.relative_rms for cost in costs]
    assert distances == sorted(distances, reverse=True)
    assert min(distances) > 0
    assert 0.3 < sum(cost.macs for cost in costs) < 1
    assert not any(cost.kept for cost in costs)


def test_the_search_keeps_the_costliest_and_no_more_than_needed(sensitivity):
    graph, made = sensitivity()
    costs = made.costs(Progress())
    everything, _ = made.search(costs, 100, Progress())
    assert not any(cost.kept for cost in everything)
    marked, report = made.search(costs, 0, Progress())
    kept = [cost.kept for cost in marked]
    assert kept == sorted(kept, reverse=True)
    assert report.drop == 0
    assert report.samples == 10
    layers = weighted_layers(graph.graph)
    usual = {layer.name for layer in layers_to_quantize(layers, made.policy([]))}
    left = {layer.name for layer in layers_to_quantize(layers, made.policy(marked))}
    gone = {c.group for c in marked if c.kept}
    assert {name.rpartition("/")[0].rpartition(".")[0] for name in usual - left} == gone


def outlier_net():
    """One path whose module has a layer of its own and layers in modules below it."""
    from quantized_graphs import Net

    net = Net(8)
    y = net.add("Relu", "start", "x")
    for path in ("block", "block.inner.fc", "other.fc"):
        y = net.add("Relu", f"{path}.act", net.add("MatMul", path, y, net.normal(8, 8)))
    return net.model(y)


def test_keeping_a_module_does_not_keep_the_groups_below_it(sensitivity):
    x = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    graph, made = sensitivity(outlier_net(), {"x": x})
    costs = made.costs(Progress())
    assert {cost.group for cost in costs} == {"block", "block.inner", "other"}
    marked = [msgspec.structs.replace(cost, kept=cost.group == "block") for cost in costs]
    left = layers_to_quantize(weighted_layers(graph.graph), made.policy(marked))
    assert {layer.name for layer in left} == {"block.inner.fc/MatMul", "other.fc/MatMul"}


def test_what_was_asked_to_be_quantized_can_be_kept(sensitivity):
    graph, made = sensitivity(quantize=["head", "block4.0.attn.local_conv"])
    marked = [msgspec.structs.replace(c, kept=True) for c in made.costs(Progress())[:-1]]
    marked += made.costs(Progress())[-1:]
    left = layers_to_quantize(weighted_layers(graph.graph), made.policy(marked))
    assert len(left) == marked[-1].layers


def test_a_budget_that_nothing_keeps_is_refused(sensitivity):
    x = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    _, made = sensitivity(outlier_net(), {"x": x})
    with pytest.raises(PrecisionError, match=r"no set of layers stays within --max-drop 0\.0001"):
        made.search(made.costs(Progress()), 0.0001, Progress())


@export_test
@pytest.mark.slow
def test_the_choice_is_in_the_bundle_and_makes_the_same_set_again(tiny_recipe, tmp_path):
    images = synthetic_samples("input", 24, Preprocessing.for_size(64, 64), seed=7)
    given = [sample["input"][None] for _, sample in images.make(0)]
    asked = tiny_recipe(precision="int8", features=True, weights=None)
    request = Request(calibration=given, max_drop=2)  # per cent of relative RMS: no classes
    export = export_recipe(asked, out=tmp_path, request=request)
    manifest = read_bundle(export.bundle)
    report = manifest.precision.quantization
    assert report.search.max_drop == 2
    assert report.search.drop <= 2
    kept = {cost.group for cost in report.sensitivity if cost.kept}
    assert 0 < len(kept) < len(report.sensitivity)
    page = Page((export.bundle / QUANTIZATION).read_text())
    assert [row[0] for row in page.rows[1:]] == [cost.group for cost in report.sensitivity]
    groups = {layer.name.rpartition("/")[0].rpartition(".")[0] for layer in report.layers}
    assert groups == {cost.group for cost in report.sensitivity} - kept
    nodes = nodes_of(onnx.load(export.bundle / MODEL))
    for layer in report.layers:
        assert "DequantizeLinear" in nodes[layer.name].input[0]
    save_recipe(asked, manifest.recipe, tmp_path / "decided.toml")
    again = export_recipe(
        read_recipe(tmp_path / "decided.toml"),
        out=tmp_path / "again",
        request=Request(calibration=given),
    )
    second = again.manifest.precision.quantization
    assert [layer.name for layer in second.layers] == [layer.name for layer in report.layers]
    assert not (again.bundle / QUANTIZATION).exists()
