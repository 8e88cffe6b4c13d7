"""Whole exports for TensorRT-RTX, which builds without a GPU: bundle, plan and passport."""

from pathlib import Path

import pytest

import sam_deploy
from sam_deploy.bundle import read_bundle
from sam_deploy.bundle.files import sha256_of
from sam_deploy.errors import MachineError
from sam_deploy.exporter import export_recipe, stages
from sam_deploy.recipe import recipe_from_dict
from sam_deploy.runtime import find_machine

SMT = {"model": "smt_t", "image_size": [128, 128]}
SAM = {"model": "sam", "image_size": [16, 16], "precision": "fp16", "sam": {"dim": 64, "heads": 4}}
PROFILE = {"min": 2, "opt": 4, "max": 16}
ADA_AND_LATER = ["8.9", "12.0", "12.1"]
CASES = {
    "fp32": {**SMT, "precision": "fp32"},
    "fp16": {**SMT, "precision": "fp16"},
    "int8": {**SMT, "precision": "int8", "calibration": "synthetic"},
    "fp8": {**SMT, "precision": "fp8", "calibration": "synthetic"},
    "backbone": {**SMT, "precision": "fp16", "features": True, "image_size": [64, 96]},
    "sam": SAM,
    "sam, static batch": {**SAM, "batch": 2},
    **{name: {**SMT, "model": name, "precision": "fp16"} for name in ("smt_s", "smt_b", "smt_l")},
}
PLANS = {
    "fp16": {"profile": PROFILE, "compute_capabilities": ["8.0", "8.9", "12.0"]},
    "sam": {"profile": PROFILE},
}
SLOW = {
    "fp32",
    "fp8",
    "backbone",
    "smt_s",
    "smt_b",
    "smt_l",
}
FEW = 16


@pytest.fixture(scope="module")
def fast():
    """A model is lowered once for all precisions, and few samples find the ranges."""
    lower, done = stages.lowered, {}

    def lowered(subject, recipe, *rest):
        key = (recipe.model, recipe.features, recipe.batch)
        if key not in done:
            done[key] = lower(subject, recipe, *rest)
        # the precision is written into the graph
        return done[key]._replace(graph=done[key].graph.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "lowered", lowered)
        patch.setattr("sam_deploy.exporter.calibration_data.SYNTHETIC_SAMPLES", FEW)
        yield


@pytest.mark.export
@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]
)
def test_an_export_ends_with_a_plan_and_its_passport(tmp_path, case):
    plans = {"engines": ["tensorrt-rtx"], **PLANS.get(case, {})}
    recipe = recipe_from_dict({**CASES[case], "plans": plans}, case)
    bundle = export_recipe(recipe, out=tmp_path).bundle
    manifest = read_bundle(bundle)  # every file has the hash and size that are listed
    [plan] = manifest.plans
    assert (bundle / plan.file).is_relative_to(bundle / "plans")
    assert plan.bytes == manifest.files[plan.file].bytes == (bundle / plan.file).stat().st_size
    assert sha256_of(bundle / plan.file) == manifest.files[plan.file].sha256
    assert plan.onnx_sha256 == manifest.files["model.onnx"].sha256
    expected = plans.get("compute_capabilities", ADA_AND_LATER if case == "fp8" else [])
    assert plan.compute_capabilities == expected
    assert plan.profile == (None if recipe.batch else recipe.plans.profile)
    assert {path.name for path in tmp_path.iterdir()} == {bundle.name}
    check_loading(bundle)


def check_loading(bundle: Path):
    if find_machine([]).gpu is None:
        with pytest.raises(MachineError, match=r"^this machine has no NVIDIA GPU or no driver: "):
            sam_deploy.load(bundle, "tensorrt-rtx")
    engine = sam_deploy.load(bundle)
    assert "tensorrt-rtx" in {engine.chosen.name, *engine.chosen.passed_over}
