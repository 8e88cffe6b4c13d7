"""`sam-export --int8` and `--fp8` on the command line: what is refused, and how it ends."""

import json

import pytest
import tomli_w
from conftest import TINY

from sam_deploy.cli.export import main
from sam_deploy.exporter import calibrated
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path, tiny_checkpoint):
    """Writes the tiny model's recipe to a file."""

    def write(**lines):
        data = {
            "model": "tiny",
            "image_size": [64, 64],
            "architecture": TINY,
            "weights": str(tiny_checkpoint),
            "plans": {"engines": ["none"]},
            **lines,
        }
        (tmp_path / "tiny.toml").write_text(tomli_w.dumps(data))
        return "tiny.toml"

    return write


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for number, image in enumerate(synthetic_images(24, 5)):
        image.save(tmp_path / "images" / f"{number}.png")
    return "images"


def ended(capsys, *argv, code=2):
    """The message of a refusal; nothing is written."""
    assert main([*argv, "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == code
    return answer["error"]


def test_one_precision_a_bundle(capsys):
    for flags in (["--int8", "--fp16"], ["--int8", "--fp8"]):
        said = ended(capsys, "--model", "smt_t", *flags)
        assert "a bundle has one precision" in said
        assert all(flag in said for flag in flags)


def test_int8_needs_samples(capsys, recipe, tmp_path):
    said = ended(capsys, recipe(), "--int8", "--out", "out")
    assert "INT8 and FP8 need samples to find their ranges on" in said
    assert "--calibration synthetic to only try it" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--sensitivity"], "sensitivity belongs to precision 'int8' and 'fp8', not 'fp16'"),
        (["--max-drop", "1"], "a largest drop belongs to"),
        (["--ship", "best"], "shipping the best belongs to"),
        (["--calibration", "synthetic"], "--calibration is for INT8 and FP8"),
        (["--calibration-method", "entropy"], "--calibration-method is for INT8 and FP8"),
    ],
)
def test_flags_of_int8_are_not_those_of_fp16(capsys, recipe, flags, reason):
    assert reason in ended(capsys, recipe(), "--fp16", *flags)


@pytest.mark.parametrize("drop", ["-1", "101", "nan"])
def test_a_drop_is_in_points(capsys, recipe, drop):
    said = ended(capsys, recipe(), "--int8", "--calibration", "synthetic", f"--max-drop={drop}")
    assert "expected 0 to 100 points" in said


def test_a_recipe_is_not_saved_over_another_or_nowhere(capsys, recipe, tmp_path):
    command = [recipe(), "--int8", "--calibration", "synthetic", "--save-recipe"]
    assert "exists. Choose another name" in ended(capsys, *command, "tiny.toml")
    assert "there is no folder nowhere" in ended(capsys, *command, "nowhere/new.toml")


def test_a_flag_overrides_an_int8_recipe(capsys, recipe):
    path = recipe(precision="int8", calibration="synthetic", quantization={"method": "entropy"})
    assert main([path, "--fp16", "--dry-run", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["recipe"]
    assert made["precision"] == "fp16"
    assert not made.get("calibration")
    assert not made.get("quantization")
    assert main([path, "--fp8", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["calibration"] == "synthetic"


def test_the_plan_says_what_is_measured_on(capsys, recipe, images):
    path = recipe()
    for flags, said in (
        ([], "mse on NOTHING GIVEN"),
        (["--data", images], "mse on three in four of images"),
        (["--calibration", "synthetic", "--calibration-method", "entropy"], "entropy on synthetic"),
    ):
        assert main([path, "--int8", *flags, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert said in out
        assert "linear, conv" in out
    assert "no such file" in ended(capsys, path, "--int8", "--calibration", "missing", "--dry-run")


@pytest.mark.export
def test_fp8_for_a_gpu_without_it_is_refused(capsys, recipe, images, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    command = [recipe(), "--fp8", "--data", images, "--out", "out", "--engine", "tensorrt-rtx"]
    said = ended(capsys, *command, "--compute-capability", "8.0")
    assert "8.0" in said
    assert "8.9" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.export
def test_a_folder_is_divided_and_the_bundle_says_so(capsys, recipe, images, tmp_path):
    command = [recipe(), "--int8", "--data", images, "--out", "out", "--sensitivity", "--json"]
    saved = ["--save-recipe", "decided.toml"]
    assert main([*command, *saved]) == 0
    out, err = capsys.readouterr()
    manifest = json.loads(out)["manifest"]
    assert manifest["precision"]["quantization"]["calibration"]["samples"] == 18
    assert manifest["parity"][0]["samples"] == 6
    assert "fewer than 100" in err
    names = sorted(path.name for path in (tmp_path / "out" / "tiny-int8-64").iterdir())
    assert names[-2:] == ["parity.json", "quantization.html"]
    assert main(["decided.toml", "--dry-run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["recipe"]
    assert again["precision"] == "int8"


@pytest.mark.export
def test_a_wrong_scale_ends_with_1(capsys, recipe, images, monkeypatch):
    honest = calibrated.insert_qdq

    def clipping(graph, layers, ranges, *others):
        return honest(graph, layers, {k: v / 10 for k, v in ranges.items()}, *others)

    monkeypatch.setattr(calibrated, "insert_qdq", clipping)
    said = ended(capsys, recipe(), "--int8", "--data", images, "--out", "out", code=1)
    assert "not close enough to PyTorch" in said


@pytest.mark.parametrize("name", ["decided.py", "images", "decided"])
def test_a_recipe_is_saved_as_toml_and_nothing_else_is_overwritten(capsys, recipe, images, name):
    command = [recipe(), "--int8", "--calibration", "synthetic", "--force", "--save-recipe", name]
    assert "expected the name of a .toml file" in ended(capsys, *command)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--int8", "--data", "images"], "does not go with int8, data"),
        (["--dry-run"], "does not go with dry-run"),
        (["--engine", "none"], "would build nothing"),
    ],
)
def test_a_rebuild_refuses_what_it_would_not_look_at(capsys, tiny_bundle, flags, said):
    before = {path: path.read_bytes() for path in tiny_bundle.rglob("*") if path.is_file()}
    assert said in ended(capsys, "--rebuild", str(tiny_bundle), *flags)
    assert {p: p.read_bytes() for p in tiny_bundle.rglob("*") if p.is_file()} == before
