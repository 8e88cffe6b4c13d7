"""What a recipe says of quantization: read, refused in words, and written back the same."""

import msgspec
import pytest
import tomli_w

from sam_deploy.cli._save_recipe import save_recipe
from sam_deploy.errors import InputError
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import Recipe, read_recipe, recipe_from_dict

PLAIN = {"model": "smt_t", "image_size": [224, 224], "precision": "int8"}
FULL = {
    "kinds": ["linear", "conv", "grouped"],
    "quantize": ["head"],
    "keep": ["block1.0.attn", "block3"],
    "method": "percentile",
    "percentile": 99.9,
    "smooth": 0.75,
    "rounding": "nearest",
}
PLANS = {
    "engines": ["tensorrt-rtx", "tensorrt"],
    "profile": {"min": 2, "opt": 4, "max": 8},
    "compute_capabilities": ["8.9", "12.0"],
}


def read(**lines):
    return recipe_from_dict({**PLAIN, **lines}, "a recipe")


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"quantization": FULL, "plans": PLANS, "calibration": "synthetic"},
        {"precision": "fp8", "quantization": {"method": "entropy"}},
        {"quantization": {"target": "cpu", "kinds": ["conv"]}},
    ],
)
def test_it_comes_back_from_toml_and_json(lines, tmp_path):
    recipe = read(**lines)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe
    (tmp_path / "plain.toml").write_text(tomli_w.dumps({**PLAIN, **lines}))
    assert read_recipe(tmp_path / "plain.toml") == recipe
    save_recipe(recipe, recipe, tmp_path / "saved.toml")
    assert read_recipe(tmp_path / "saved.toml") == recipe


def test_a_saved_recipe_finds_its_files_from_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    recipe = read(calibration="images", weights="w.pth", class_names="deep/names.txt")
    save_recipe(recipe, recipe, tmp_path / "deep" / "er" / "saved.toml")
    again = read_recipe(tmp_path / "deep" / "er" / "saved.toml")
    for field in ("calibration", "weights", "class_names"):
        found = (tmp_path / getattr(again, field)).resolve()
        assert found == tmp_path / getattr(recipe, field)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["saved.toml"]


def test_an_image_resized_without_a_crop_stays_so(tmp_path):
    recipe = read(preprocessing={"size_px": [224, 224], "mean": [0.5, 0.5, 0.5]})
    save_recipe(recipe, recipe, tmp_path / "saved.toml")
    assert read_recipe(tmp_path / "saved.toml") == recipe


def test_a_recipe_that_became_floats_has_nothing_of_int8(tmp_path):
    asked = read(quantization=FULL, calibration="synthetic")
    decided = recipe_from_dict({**PLAIN, "precision": "fp32"}, "a recipe")
    save_recipe(asked, decided, tmp_path / "saved.toml")
    assert read_recipe(tmp_path / "saved.toml") == decided


WRONG = {
    "unknown method": ({"method": "kl"}, r"quantization.method: expected one of 'minmax', .*'kl'"),
    "unknown kind": ({"kinds": ["linera"]}, r"quantization.kinds.*'linear'.*got 'linera'"),
    "unknown key": ({"keeps": []}, r"unknown key quantization.keeps. Did you mean 'keep'"),
    "percentile": ({"percentile": 50}, r"quantization.percentile: Expected .* >= 90"),
    "smooth": ({"smooth": 1.5}, r"quantization.smooth: Expected .* <= 1"),
    "no list": ({"keep": "head"}, r"quantization.keep: Expected `array`, got `str`"),
    "both": ({"keep": ["a", "b"], "quantize": ["b"]}, r"b: both under quantize and under keep"),
    "target": ({"target": "gpu"}, r"quantization.target: expected one of .*'cpu'.*'gpu'"),
    "rounding": ({"rounding": "up"}, r"quantization.rounding: expected one of .*'nearest'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_lines_are_refused_in_words(case):
    lines, reason = WRONG[case]
    with pytest.raises(InputError, match=reason):
        read(quantization=lines)


NOT_ON_CPUS = {
    "fp8": ({"precision": "fp8"}, "no CPU computes in FP8"),
    "fp16 ends": ({"io_dtype": "fp16"}, "io_dtype 'fp16' is for GPUs"),
    "a plan": ({"plans": {"engines": ["tensorrt-rtx"]}}, "asks for a TensorRT plan"),
}


@pytest.mark.parametrize("case", NOT_ON_CPUS)
def test_what_no_cpu_has_is_refused(case):
    lines, reason = NOT_ON_CPUS[case]
    with pytest.raises(InputError, match=reason):
        read(quantization={"target": "cpu"}, **lines)


def test_a_target_is_in_the_name():
    assert read(quantization={"target": "cpu"}).name == "smt_t-int8-cpu-224"
    assert read(quantization={"target": "tensorrt"}).name == read().name == "smt_t-int8-224"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("line", [{"quantization": {}}, {"calibration": "synthetic"}])
def test_floats_have_no_quantization(precision, line):
    with pytest.raises(InputError, match="belong to precision 'int8' and 'fp8'"):
        read(precision=precision, **line)


def test_the_defaults_are_what_the_docs_say():
    policy = Quantization()
    assert policy.target == "tensorrt"
    assert policy.taken_kinds == ["linear", "conv"]
    on_cpu = ["linear", "conv", "depthwise", "grouped", "first"]
    assert Quantization(target="cpu").taken_kinds == on_cpu
    assert Quantization(target="cpu", kinds=["conv"]).taken_kinds == ["conv"]
    assert (policy.method, policy.smooth, policy.rounding) == ("mse", 0.5, "together")
    assert read().quantization is None
