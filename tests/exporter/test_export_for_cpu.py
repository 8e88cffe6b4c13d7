"""Whole exports to INT8 for CPUs: they load here, and not where they would be refused."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from quantized_graphs import nodes_of

import sam_deploy
from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.cli.export import main
from sam_deploy.errors import CheckFailed, MachineError
from sam_deploy.exporter import Request, calibrated, export_recipe
from sam_deploy.parity import synthetic_samples
from sam_deploy.precision.quantize import Span
from sam_deploy.preprocess import Preprocessing
from sam_deploy.verification.scales import check_scales

pytestmark = pytest.mark.export

CALIBRATION = synthetic_samples("input", 22, Preprocessing.for_size(64, 64), seed=7)
FOR_CPU = {"precision": "int8", "quantization": {"target": "cpu"}, "plans": {"engines": ["auto"]}}


def samples():
    return [sample["input"][None] for _, sample in CALIBRATION.make(0)]


@pytest.fixture(scope="module")
def bundle(tiny_recipe, tmp_path_factory):
    """A bundle of the tiny SMT; TensorRT-RTX is installed, and builds no plan of it."""
    out = tmp_path_factory.mktemp("for-cpu")
    request = Request(calibration=samples(), sensitivity=True)
    return export_recipe(tiny_recipe(**FOR_CPU), out=out, request=request).bundle


def test_it_says_what_it_is(bundle):
    manifest = read_bundle(bundle)
    assert bundle.name == "tiny-int8-cpu-64"
    report = manifest.precision.quantization
    assert report.target == "cpu"
    assert report.macs > 0.8
    assert len(report.sensitivity) > 5
    assert manifest.plans == []
    assert set(manifest.precision.types_by_op["LayerNormalization"]) == {"fp32"}
    (verdict,) = manifest.verdicts
    assert verdict.target.startswith("ONNX Runtime's CPUExecutionProvider")
    assert verdict.baseline == "fp32"


def test_it_loads_on_cpus_alone(bundle):
    engine = sam_deploy.load(bundle)
    assert engine.chosen.name in ("openvino", "cpu")
    for gpu in ("tensorrt", "tensorrt-rtx", "cuda"):
        assert "it is quantized for CPUs" in engine.chosen.passed_over[gpu]
        with pytest.raises(MachineError, match="for a GPU export it with --target tensorrt"):
            sam_deploy.load(bundle, gpu)


def test_no_plan_is_built_of_it_later(bundle, capsys):
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    assert main(["--rebuild", str(bundle)]) == 2
    assert "is quantized for CPUs, and TensorRT refuses that graph" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_a_plan_asked_for_by_name_is_refused_first(tmp_path, capsys):
    asked = ["--model", "smt_t", "--int8", "--target", "cpu", "--calibration", "synthetic"]
    assert main([*asked, "--engine", "tensorrt-rtx", "--out", str(tmp_path)]) == 2
    assert "plans.engines asks for a TensorRT plan" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_says_what_would_be_done(tmp_path, capsys):
    asked = ["--model", "smt_t", "--int8", "--target", "cpu", "--calibration", "synthetic"]
    assert main([*asked, "--out", str(tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "depthwise" in said
    assert "CPUs, FP32 beside them" in said
    assert "smt_t-int8-cpu-224" in said


def test_a_target_without_int8_is_refused(tmp_path, capsys):
    assert main(["--model", "smt_t", "--target", "cpu", "--out", str(tmp_path)]) == 2
    assert "--target is for INT8 and FP8: give --int8 or --fp8, too" in capsys.readouterr().err


def test_ranges_of_a_tenth_fail_parity(tiny_recipe, tmp_path, monkeypatch):
    honest = calibrated.insert_qdq_around

    def clipping(graph, layers, ranges, weights):
        tenths = {name: Span(low / 10, high / 10) for name, (low, high) in ranges.items()}
        honest(graph, layers, tenths, weights)

    monkeypatch.setattr(calibrated, "insert_qdq_around", clipping)
    with pytest.raises(CheckFailed, match="not close enough to PyTorch"):
        export_recipe(tiny_recipe(**FOR_CPU), out=tmp_path, request=Request(calibration=samples()))
    assert (tmp_path / "tiny-int8-cpu-64.rejected").is_dir()


@pytest.mark.parametrize("place", ["input", "output"])
@pytest.mark.parametrize("what", ["scale", "zero point"])
def test_a_pair_that_is_not_its_ranges_is_found(bundle, place, what):
    model, report = onnx.load(bundle / MODEL), read_bundle(bundle).precision.quantization
    check_scales(model, report)
    node = nodes_of(model)["block2.0.mlp.fc1/Conv"]
    if place == "input":
        pair = next(n for n in model.graph.node if node.input[0] in n.output)
    else:
        pair = next(n for n in model.graph.node if node.output[0] in n.input)
    name = pair.input[1 if what == "scale" else 2]
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    harmed = numpy_helper.to_array(weight) // np.uint8(2) if what == "zero point" else np.float32(1)
    weight.CopyFrom(numpy_helper.from_array(np.asarray(harmed), name))
    with pytest.raises(CheckFailed, match=f"block2.0.mlp.fc1/Conv has the {what} .* its {place}"):
        check_scales(model, report)


def test_the_best_is_fp32_where_int8_fails(tiny_recipe, tmp_path):
    recipe = tiny_recipe(**FOR_CPU, tolerances={"relative_rms": 1e-4})
    request = Request(calibration=samples(), ship_best=True)
    done = export_recipe(recipe, out=tmp_path, request=request)
    assert done.manifest.precision.precision == "fp32"
    assert done.manifest.recipe.quantization is None
