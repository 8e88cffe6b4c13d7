"""Real weights, real labels: what each precision costs, and what a naive one would."""

import sys
from pathlib import Path

import msgspec
import pytest
from conftest import slow
from outliers import with_outliers
from safetensors.torch import load_file, save_file

from sam_deploy.errors import CheckFailed
from sam_deploy.exporter import Request, export_recipe
from sam_deploy.recipe import DEFAULT_TOLERANCES, read_recipe, recipe_from_dict
from sam_deploy.verification import Asked, verify

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[2]
COPIES = 4  # of 596: half a point is 12 images
NEAR_TIE = 0.02  # standard deviations of the logits between the two classes of a flip


def written(folder, copies):
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import digits_data
    finally:
        sys.path.remove(str(ROOT / "examples"))
    digits_data.write(folder / "digits", copies)
    return folder / "digits"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Training images, and thousands of augmented copies of those held out."""
    return written(tmp_path_factory.mktemp("data"), COPIES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same without copies."""
    return written(tmp_path_factory.mktemp("data"), 0)


@pytest.fixture(scope="module")
def exported(digits, plain, tmp_path_factory):
    """The bundle of a precision, calibrated on training images."""
    made = {}

    def export(precision):
        if precision not in made:
            recipe = read_recipe(ROOT / "export" / f"smt_digits-{precision}-32.toml")
            changes = {"plans": msgspec.structs.replace(recipe.plans, engines=["none"])}
            if precision in ("int8", "fp8"):
                changes["calibration"] = str(digits / "train")
            recipe = msgspec.structs.replace(recipe, **changes)
            out = tmp_path_factory.mktemp("engines")
            request = Request(data=plain / "test")
            made[precision] = export_recipe(recipe, out=out, request=request).bundle
        return made[precision]

    return export


@pytest.fixture(scope="module")
def judged(exported, digits):
    def judge(precision):
        result = verify(exported(precision), Asked(data=digits / "test"))
        assert result.passed, result.failures
        (artefact,) = result.artefacts
        assert artefact.parity.accuracy.samples == 596 * COPIES
        return artefact.parity

    return judge


def test_fp16_changes_no_prediction_but_near_ties(judged):
    parity = judged("fp16")
    (output,) = parity.outputs
    assert output.flips <= 2
    assert (output.flip_margin_max or 0) < NEAR_TIE
    assert abs(parity.accuracy.top1_drop) <= 100 * 2 / parity.accuracy.samples


@pytest.mark.parametrize("precision", ["int8", slow("fp8")])
def test_int8_and_fp8_lose_half_a_point_at_most(judged, precision):
    accuracy = judged(precision).accuracy
    assert accuracy.reference_top1 > 97
    assert accuracy.top1_drop <= 0.5
    assert accuracy.top1_interval[1] <= 0.75, "so many images that half a point shows"


@pytest.mark.slow
def test_fp32_predicts_the_same(judged):
    parity = judged("fp32")
    assert parity.outputs[0].flips == 0
    assert parity.accuracy.top1_drop == 0


NAIVE = {"smooth": 0.0, "method": "minmax", "rounding": "nearest"}


@pytest.mark.parametrize(("quantization", "passes"), [({}, True), (NAIVE, False)])
def test_outlier_channels_fail_naive_int8_and_pass_the_default_policy(
    digits, plain, tmp_path, quantization, passes
):
    recipe = read_recipe(ROOT / "export" / "smt_digits-int8-32.toml")
    save_file(with_outliers(load_file(recipe.weights)), tmp_path / "outliers.safetensors")
    data = {
        **msgspec.to_builtins(recipe),
        "weights": str(tmp_path / "outliers.safetensors"),
        "calibration": str(digits / "train"),
        "tolerances": msgspec.to_builtins(DEFAULT_TOLERANCES["int8"]),
        "quantization": quantization,
        "plans": {"engines": ["none"]},
    }
    doctored = recipe_from_dict(data, "a test's recipe")
    request = Request(data=plain / "test")
    if passes:
        assert export_recipe(doctored, out=tmp_path, request=request).bundle.is_dir()
    else:
        with pytest.raises(CheckFailed, match="is not close enough to PyTorch"):
            export_recipe(doctored, out=tmp_path, request=request)
