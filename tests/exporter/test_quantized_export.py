"""Whole exports to INT8 and FP8: true to their word, the same every time, or not at all."""

import msgspec
import numpy as np
import onnx
import pytest
import torch
from conftest import slow
from quantized_graphs import nodes_of

import sam_deploy
from sam_deploy.bundle import MODEL, QUANTIZATION, read_bundle
from sam_deploy.cpu_info import cpu_name
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.exporter import Request, calibrated, export_recipe, verdict
from sam_deploy.parity import SamplesHash, synthetic_samples
from sam_deploy.plans import PlanOptions
from sam_deploy.precision import audit_precision
from sam_deploy.preprocess import Preprocessing
from sam_deploy.quantization import Quantization

pytestmark = pytest.mark.export

CALIBRATION = synthetic_samples("input", 22, Preprocessing.for_size(64, 64), seed=7)


def samples():
    return [sample["input"][None] for _, sample in CALIBRATION.make(0)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# as for random weights, whose classes are nearly tied
UNTRAINED = {"relative_rms": 0.1, "max_error": 0.1, "cosine": 0.99, "top1_agreement": 0.5}
CASES = {
    "int8": {"precision": "int8"},
    "fp8": {"precision": "fp8", "tolerances": UNTRAINED},
    "batch": {"precision": "int8", "batch": 5, "io_dtype": "fp16"},
}


@pytest.fixture(scope="module")
def exported(tiny_recipe, tmp_path_factory):
    """Makes the export of a case, once."""
    made = {}

    def make(case):
        if case not in made:
            request = Request(calibration=samples())
            recipe = tiny_recipe(**CASES[case])
            out = tmp_path_factory.mktemp(case)
            made[case] = export_recipe(recipe, out=out, request=request)
        return made[case]

    return make


@pytest.mark.parametrize("case", CASES)
def test_the_manifest_is_true(exported, case):
    export = exported(case)
    manifest = read_bundle(export.bundle)
    assert manifest == export.manifest
    report = manifest.precision
    model = onnx.load(export.bundle / MODEL)
    again = audit_precision(
        model,
        CASES[case]["precision"],
        report.islands,
        CASES[case].get("io_dtype", "fp32"),
        largest=report.largest,
        quantization=report.quantization,
    )
    assert again == report
    nodes = nodes_of(model)
    assert len(report.quantization.layers) > 20
    for layer in report.quantization.layers:
        assert all("DequantizeLinear" in name for name in nodes[layer.name].input[:2])
    found, expected = report.quantization.calibration, SamplesHash()
    for x in samples():
        expected.update({"input": x})
    assert found.sha256 == expected.hexdigest()  # whatever the batch size
    assert (found.data, found.samples, found.method) == ("iterable", 22, "mse")
    assert 0.5 < report.quantization.macs < 1


@pytest.mark.parametrize("case", CASES)
def test_only_the_bundle_is_left(exported, case):
    export = exported(case)
    assert names(export.bundle.parent) == [export.bundle.name]
    assert names(export.bundle) == [
        "example.npz",
        "manifest.json",
        "manifest.json.sha256",
        "model.onnx",
        "parity.json",
    ]


@pytest.mark.parametrize("case", CASES)
def test_it_runs_and_is_near_pytorch(exported, case, tiny_model):
    engine = sam_deploy.load(exported(case).bundle)
    count = CASES[case].get("batch", 6)
    x = np.concatenate(samples()[:count])
    dtype = np.float16 if case == "batch" else np.float32
    with torch.no_grad():
        expected = tiny_model()(torch.from_numpy(x)).numpy()
    error = np.sqrt(np.mean(np.square(engine(x.astype(dtype)) - expected))) / expected.std()
    assert 1e-4 < error < {"fp8": 0.1}.get(case, 0.05)
    parity = exported(case).manifest.parity[0]
    assert parity.passed
    assert parity.outputs[0].relative_rms > 1e-4


@pytest.mark.parametrize("case", ["int8", slow("fp8")])
def test_the_same_again_is_the_same_to_the_byte(exported, case, tiny_recipe, tmp_path):
    request = Request(calibration=(x for x in samples()))
    again = export_recipe(tiny_recipe(**CASES[case]), out=tmp_path, request=request)
    first = exported(case).manifest
    assert again.manifest.files[MODEL] == first.files[MODEL]
    assert again.manifest.precision == first.precision


def test_the_verdict_names_what_it_was_timed_on(exported):
    (only,) = exported("int8").manifest.verdicts
    assert only.target == f"ONNX Runtime's CPUExecutionProvider ({cpu_name()})"
    assert (only.precision, only.baseline) == ("int8", "fp32")
    assert only.ratio > 0
    assert only.ship == ("int8" if only.ratio >= 1.02 else "fp32")
    assert "calibrated on 22 samples; with fewer than 100" in exported("int8").notes[0]


@pytest.mark.parametrize("case", ["int8", slow("fp8")])
def test_ranges_of_a_tenth_fail_parity(tiny_recipe, tmp_path, monkeypatch, case):
    honest = calibrated.insert_qdq

    def clipping(graph, layers, ranges, *others):
        return honest(graph, layers, {k: v / 10 for k, v in ranges.items()}, *others)

    monkeypatch.setattr(calibrated, "insert_qdq", clipping)
    with pytest.raises(CheckFailed, match="not close enough to PyTorch"):
        export_recipe(
            tiny_recipe(**CASES[case]), out=tmp_path, request=Request(calibration=samples())
        )
    (rejected,) = tmp_path.iterdir()
    assert rejected.name == f"tiny-{case}-64.rejected"
    assert names(rejected) == ["model.onnx", "parity.json"]


@pytest.mark.parametrize("bad", [np.nan, slow(np.inf)])
def test_samples_that_are_no_numbers_are_refused(tiny_recipe, tmp_path, bad):
    given = samples()
    given[3][0, 0, 0, 0] = bad
    with pytest.raises(InputError, match="cannot be calibrated: it holds NaN or infinity"):
        export_recipe(
            tiny_recipe(precision="int8"), out=tmp_path / "out", request=Request(calibration=given)
        )
    assert not (tmp_path / "out").exists()


def test_an_iterable_that_fails_leaves_nothing(tiny_recipe, tmp_path):
    def torn():
        yield samples()[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        export_recipe(
            tiny_recipe(precision="int8"), out=tmp_path / "out", request=Request(calibration=torn())
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("ratio", "shipped"), [slow(1.5, "int8"), (0.5, "fp32")])
def test_the_best_is_shipped(tiny_recipe, tmp_path, monkeypatch, ratio, shipped):
    monkeypatch.setattr(verdict, "speed_ratio", lambda *_: ratio)  # no machine is fast on demand
    request = Request(calibration=samples(), ship_best=True, sensitivity=True)
    export = export_recipe(tiny_recipe(precision="int8"), out=tmp_path, request=request)
    manifest = read_bundle(export.bundle)
    assert export.bundle.name == "tiny-best-64"
    assert manifest.precision.precision == manifest.recipe.precision == shipped
    assert (manifest.precision.quantization is not None) == (shipped == "int8")
    assert (QUANTIZATION in manifest.files) == (shipped == "int8")
    assert [v.ratio for v in manifest.verdicts] == [ratio]
    if shipped == "fp32":
        assert manifest.parity[0].tolerances.relative_rms <= 1e-5
        assert "ship FP32" in export.notes[-1]
        assert manifest.recipe.quantization is manifest.recipe.calibration is None


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_cuda_that_is_listed_and_does_not_start(tiny_recipe, tmp_path, monkeypatch):
    # as onnxruntime-gpu on a machine without a GPU
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: listed)
    export = export_recipe(
        tiny_recipe(precision="int8"), out=tmp_path, request=Request(calibration=samples())
    )
    assert "CPUExecutionProvider" in export.manifest.verdicts[0].target


class Large(torch.nn.Module):
    """A layer in the middle whose results FP16 cannot hold."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.wide = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 8, 1)
        self.norm, self.large = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)
        self.beside, self.last = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, 8)
        with torch.no_grad():
            self.large.weight *= 60000

    def forward(self, x):
        x = self.norm(self.wide(self.stem(x)).flatten(2).transpose(1, 2))
        x = self.beside(x) + self.large(x) / 60000  # both read one activation
        return self.head(self.last(torch.relu(x)).mean(1))


def test_what_fp16_cannot_hold_is_an_island_and_not_quantized(tmp_path):
    export = sam_deploy.export(
        Large(),
        torch.randn(2, 3, 32, 32),
        out=tmp_path / "large",
        precision="int8",
        preprocessing=Preprocessing.for_size(32, 32),
        calibration="synthetic",
        allow_islands=0.9,
        plans=PlanOptions(engines=["none"]),
        quantization=Quantization(),
    )
    report = export.manifest.precision
    assert "large/MatMul" in {island.match for island in report.islands}
    listed = {layer.name for layer in report.quantization.layers}
    assert listed == {"wide/Conv", "beside/MatMul", "last/MatMul"}
    assert export.manifest.parity[0].passed
    assert "made-up data" in " ".join(export.notes)
    assert report.quantization.calibration.data == "synthetic"
    assert msgspec.json.decode((export.bundle / "parity.json").read_bytes())
