"""Whole exports: the bundle holds what its manifest says, or there is no bundle."""

import hashlib
import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from conftest import GOLDEN, cosine, golden
from safetensors.torch import load_file, save_file
from weights import golden_input

from sam_deploy import agreement
from sam_deploy.bundle import EXAMPLE, MANIFEST, MANIFEST_SUM, MODEL, PARITY, read_bundle
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.exporter import Request, export_recipe, typed
from sam_deploy.models import SAM, create_model
from sam_deploy.models.weights_hash import weights_sha256
from sam_deploy.parity import synthetic_samples
from sam_deploy.precision import audit_precision
from sam_deploy.recipe import DEFAULT_TOLERANCES, recipe_from_dict
from sam_deploy.reference import subject_from_recipe
from sam_deploy.rewrites import PIPELINE
from sam_deploy.runtime import OnnxRunner

whole_export = pytest.mark.export


def sam_recipe(**options):
    data = {"model": "sam", "image_size": [4, 6], "precision": "fp32", **options}
    data["plans"] = {"engines": ["none"]}
    return recipe_from_dict(
        {"sam": {"dim": 24, "heads": 4, "expand": 2}, **data}, "a test's recipe"
    )


def impossible():
    return {"relative_rms": 1e-12, "max_error": 1e-12, "cosine": 1.0, "top1_agreement": 1.0}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


CASES = {
    "fp32": {},
    "fp16": {"precision": "fp16"},
    "features": {
        "precision": "fp16",
        "features": True,
        "image_size": [64, 96],
        "batch": 3,
        "io_dtype": "fp16",
    },
    "softmax": {"precision": "fp16", "softmax": True},
    "sam": {"precision": "fp16"},
}


@pytest.fixture(scope="module")
def exported(tiny_recipe, tmp_path_factory):
    """Makes the export of a case, once."""
    made = {}

    def make(case):
        if case not in made:
            recipe = (sam_recipe if case == "sam" else tiny_recipe)(**CASES[case])
            made[case] = recipe, export_recipe(recipe, out=tmp_path_factory.mktemp(case))
        return made[case]

    return make


@whole_export
@pytest.mark.parametrize("case", CASES)
def test_the_manifest_is_true(exported, case):
    recipe, export = exported(case)
    manifest = read_bundle(export.bundle)
    assert manifest == export.manifest
    # of this machine only the file's name is kept
    weights = recipe.weights and Path(recipe.weights).name
    assert manifest.recipe == msgspec.structs.replace(recipe, weights=weights)
    assert manifest.name == export.bundle.name == recipe.name
    assert names(export.bundle.parent) == [recipe.name]
    assert names(export.bundle) == sorted([EXAMPLE, MANIFEST, MANIFEST_SUM, MODEL, PARITY])
    for name, info in manifest.files.items():
        data = (export.bundle / name).read_bytes()
        assert (info.sha256, info.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    model = onnx.load(export.bundle / "model.onnx")
    assert manifest.graph.nodes == len(model.graph.node)
    assert manifest.graph.operators == Counter(node.op_type for node in model.graph.node)
    assert manifest.graph.opset == model.opset_import[0].version
    report = manifest.precision
    assert report == audit_precision(
        model,
        recipe.precision,
        report.islands,
        recipe.io_dtype,
        island_macs=report.island_macs,
        largest=report.largest,
    )
    assert (report.largest is not None) == (recipe.precision == "fp16")
    assert [rule.rule for rule in manifest.rewrites.rules] == [rule.name for rule in PIPELINE]
    assert manifest.rewrites.fired
    assert manifest.rewrites.operators_after < manifest.rewrites.operators_before
    for package in ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy"):
        assert manifest.versions[package] == version(package)


@whole_export
@pytest.mark.parametrize("case", CASES)
def test_the_declared_ends_are_the_graphs(exported, case):
    recipe, export = exported(case)
    graph = onnx.load(export.bundle / "model.onnx").graph
    for declared, values in (
        (export.manifest.inputs, graph.input),
        (export.manifest.outputs, graph.output),
    ):
        assert [spec.name for spec in declared] == [value.name for value in values]
        for spec, value in zip(declared, values, strict=True):
            tensor = value.type.tensor_type
            assert spec.dims == [d.dim_param or d.dim_value for d in tensor.shape.dim]
            assert spec.dtype == onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            assert spec.dims[0] == (recipe.batch or "batch")
    expected = {"features": ["stage1", "stage2", "stage3", "stage4"], "sam": ["output"]}
    expected["softmax"] = ["probabilities"]
    assert [spec.name for spec in export.manifest.outputs] == expected.get(case, ["logits"])


@whole_export
@pytest.mark.parametrize("case", CASES)
def test_parity_is_as_reported(exported, case):
    recipe, export = exported(case)
    (report,) = export.manifest.parity
    stored = json.loads((export.bundle / "parity.json").read_text())
    assert stored["data_sha256"] == report.data_sha256
    assert report.passed
    assert report.samples == 33
    assert report.data == ("seeded normal" if case == "sam" else "synthetic")
    assert report.tolerances == recipe.tolerances == DEFAULT_TOLERANCES[recipe.precision]
    assert [output.name for output in report.outputs] == [s.name for s in export.manifest.outputs]
    for output in report.outputs:
        assert 0 < output.relative_rms <= report.tolerances.relative_rms
        counted = case not in ("features", "sam")
        assert (output.top1_agreement is not None) == counted


@whole_export
def test_the_figures_are_those_of_an_independent_count(exported):
    recipe, export = exported("fp16")
    subject = subject_from_recipe(recipe)
    (inputs,) = synthetic_samples("input", 33, subject.preprocessing).batches(33)
    x, reference = inputs["input"], subject.run(inputs)["logits"]
    actual = OnnxRunner(export.bundle / "model.onnx").run(inputs)["logits"]
    (report,) = export.manifest.parity
    chained = b""
    for row in x:
        chained = hashlib.sha256(chained + row.tobytes()).digest()
    assert report.data_sha256 == chained.hex()
    (found,) = report.outputs
    assert found.relative_rms == pytest.approx(agreement.relative_rms(actual, reference), rel=0.05)
    assert found.cosine == pytest.approx(cosine(actual, reference), abs=1e-6)
    assert found.top1_agreement == (actual.argmax(1) == reference.argmax(1)).mean()


@whole_export
def test_the_weights_are_named_by_their_hash(exported, tiny_checkpoint):
    _, export = exported("fp32")
    weights = export.manifest.weights
    assert weights.sha256 == weights_sha256(load_file(tiny_checkpoint))
    assert (weights.source, weights.file, weights.seed) == ("checkpoint", "tiny.safetensors", None)
    assert exported("softmax")[1].manifest.weights == weights
    random = exported("sam")[1].manifest.weights
    assert (random.source, random.file, random.seed) == ("random", None, 0)


@whole_export
def test_the_softmax_is_an_island_and_gives_probabilities(exported):
    _, export = exported("softmax")
    assert [island.match for island in export.manifest.precision.islands] == ["head.1"]
    assert export.manifest.precision.types_by_op["Softmax"] == {"fp16": 2, "fp32": 1}
    runner = OnnxRunner(export.bundle / "model.onnx")
    (y,) = runner.run({"input": golden_input(2, 3, 64, 64)}).values()
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)


@whole_export
def test_one_recipe_gives_one_onnx_file(exported, tmp_path):
    _, first = exported("sam")
    again = export_recipe(sam_recipe(**CASES["sam"]), out=tmp_path)
    assert again.manifest.files["model.onnx"] == first.manifest.files["model.onnx"]
    assert again.manifest.parity == first.manifest.parity


@whole_export
def test_a_failed_parity_leaves_no_bundle_and_keeps_the_files_aside(tmp_path):
    recipe = sam_recipe(tolerances=impossible())
    for _ in range(2):  # an earlier rejected export gives way
        with pytest.raises(CheckFailed, match="output: relative RMS") as caught:
            export_recipe(recipe, out=tmp_path)
        assert caught.value.exit_code == 1
        rejected = tmp_path / f"{recipe.name}.rejected"
        assert str(rejected) in str(caught.value)
        assert names(tmp_path) == [rejected.name]
        assert names(rejected) == ["model.onnx", "parity.json"]
        report = json.loads((rejected / "parity.json").read_text())
        assert len(report["failures"]) >= 2
        assert report["tolerances"].items() >= impossible().items()


@whole_export
def test_a_failed_parity_leaves_the_bundle_that_was_there(tmp_path):
    good = export_recipe(sam_recipe(), out=tmp_path)
    with pytest.raises(CheckFailed):
        export_recipe(
            sam_recipe(tolerances=impossible()), out=tmp_path, request=Request(force=True)
        )
    assert read_bundle(good.bundle) == good.manifest
    assert names(tmp_path) == [good.bundle.name, f"{good.bundle.name}.rejected"]


@whole_export
def test_an_existing_bundle_is_replaced_only_with_force(tmp_path):
    first = export_recipe(sam_recipe(), out=tmp_path, name="mine")
    with pytest.raises(InputError, match="--force"):
        export_recipe(sam_recipe(precision="fp16"), out=tmp_path, name="mine")
    assert read_bundle(first.bundle) == first.manifest
    second = export_recipe(
        sam_recipe(precision="fp16"), out=tmp_path, name="mine", request=Request(force=True)
    )
    assert second.bundle == first.bundle
    assert read_bundle(second.bundle).precision.precision == "fp16"
    assert names(tmp_path) == ["mine"]


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_folder_or_file_is_never_overwritten(tmp_path, force):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("more of it")
    for name in ("folder", "file"):
        with pytest.raises(InputError, match="not a bundle"):
            export_recipe(sam_recipe(), out=tmp_path, name=name, request=Request(force=force))
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "more of it"


def test_an_export_that_cannot_start_leaves_nothing(tiny_recipe, tmp_path):
    out = tmp_path / "new" / "engines"
    with pytest.raises(InputError):
        export_recipe(tiny_recipe(weights=str(tmp_path / "missing.pth")), out=out)
    with pytest.raises(InputError):
        export_recipe(tiny_recipe(class_names=str(tmp_path / "missing.txt")), out=out)
    with pytest.raises(InputError):
        export_recipe(tiny_recipe(), out=out, request=Request(data=tmp_path / "missing"))
    assert names(tmp_path) == []


@whole_export
def test_an_island_that_names_nothing_stops_the_export_and_leaves_nothing(tmp_path):
    recipe = sam_recipe(precision="fp16", islands=[{"match": "proj9", "reason": "a typing error"}])
    with pytest.raises(CheckFailed, match="proj9"):
        export_recipe(recipe, out=tmp_path)
    assert names(tmp_path) == []


@whole_export
def test_weights_that_fp16_cannot_hold_stop_the_export_and_leave_nothing(tmp_path):
    state = golden(SAM(24, 4)).state_dict()
    state["proj.weight"][3, 3] = 1e6
    save_file(state, tmp_path / "large.safetensors")
    recipe = sam_recipe(precision="fp16", weights=str(tmp_path / "large.safetensors"))
    with pytest.raises(CheckFailed, match=r"the weight proj\.weight of module proj holds 1e\+06"):
        export_recipe(recipe, out=tmp_path / "out")
    assert names(tmp_path) == ["large.safetensors"]


@whole_export
def test_smt_t_is_the_official_one(tmp_path):
    save_file(golden(create_model("smt_t")).state_dict(), tmp_path / "smt_t.safetensors")
    recipe = recipe_from_dict(
        {
            "model": "smt_t",
            "image_size": [224, 224],
            "precision": "fp32",
            "weights": str(tmp_path / "smt_t.safetensors"),
        },
        "a test's recipe",
    )
    export = export_recipe(recipe, out=tmp_path, request=Request(data=Path(GOLDEN)))
    assert export.manifest.graph.nodes <= 360
    assert len(export.manifest.class_names) == 1000
    (report,) = export.manifest.parity
    assert (report.data, report.samples) == ("folder", 2)
    official = np.load(GOLDEN / "smt_t_224.npz")["logits"]
    runner = OnnxRunner(export.bundle / "model.onnx")
    logits = runner.run({"input": golden_input(2, 3, 224, 224)})["logits"]
    assert np.abs(logits - official).max() <= 2e-5 * max(1.0, np.abs(official).max())
    assert agreement.relative_rms(logits, official) < 2e-5
    assert torch.from_numpy(logits).argmax(1).tolist() == official.argmax(1).tolist()


@whole_export
def test_a_file_that_onnxruntime_refuses_fails_the_check_and_is_kept(tmp_path, monkeypatch):
    def spoil(graph, islands, io_dtype):
        next(n for n in graph.graph if n.op_type == "Conv").attributes["group"] = ir.AttrInt64(
            "group", 5
        )

    monkeypatch.setattr(typed, "to_fp16", spoil)
    monkeypatch.setattr(typed.onnx.checker, "check_model", lambda *_, **__: None)
    monkeypatch.setattr(typed, "audit_precision", lambda *_, **__: None)
    with pytest.raises(CheckFailed, match=r"does not (load|run).*\n.*sam-fp16-4x6\.rejected"):
        export_recipe(sam_recipe(precision="fp16"), out=tmp_path)
    assert names(tmp_path / "sam-fp16-4x6.rejected") == ["model.onnx"]


@whole_export
def test_sharp_probabilities_are_not_refused(tiny_model, tiny_recipe, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.head.weight *= 6
    save_file(model.state_dict(), tmp_path / "sharp.safetensors")
    recipe = tiny_recipe(
        precision="fp16", softmax=True, weights=str(tmp_path / "sharp.safetensors")
    )
    assert export_recipe(recipe, out=tmp_path).manifest.parity[0].passed
