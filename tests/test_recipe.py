import tomllib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.errors import InputError
from sam_deploy.recipe import (
    DEFAULT_TOLERANCES,
    QUANTIZED,
    UNTRAINED_TOP1,
    Recipe,
    read_recipe,
    recipe_from_dict,
    recipes_folder,
    shipped_recipe,
)

SHIPPED = sorted(recipes_folder().glob("*.toml"))
SMALL = {"dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "sam_heads": [2, 4, 3]}
SMALL["attention_heads"] = [2, 4]
GOOD = {"model": "smt_t", "image_size": [224, 224], "precision": "fp16"}


def refusal(data):
    with pytest.raises(InputError) as caught:
        recipe_from_dict(data, "r.toml")
    assert str(caught.value).startswith("r.toml: ")
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_named_as_what_they_make(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    if recipe.weights:  # trained: held to more than the defaults
        _check_trained(recipe)
        return
    assert recipe.tolerances.relative_rms <= DEFAULT_TOLERANCES[recipe.precision].relative_rms
    expected = DEFAULT_TOLERANCES[recipe.precision]
    if recipe.precision in QUANTIZED:  # its weights are random without a checkpoint
        expected = msgspec.structs.replace(expected, top1_agreement=UNTRAINED_TOP1)
    assert recipe.tolerances == expected


def _check_trained(recipe):
    limits = msgspec.to_builtins(recipe.tolerances)
    usual = msgspec.to_builtins(DEFAULT_TOLERANCES[recipe.precision])
    for name in ("relative_rms", "max_error", "top1_drop", "top5_drop"):
        assert limits[name] <= usual[name]
    for name in ("cosine", "top1_agreement"):
        assert limits[name] >= usual[name]
    assert limits["top1_accuracy"] >= 95


def test_tolerances_that_are_not_given_are_the_precisions():
    recipe = recipe_from_dict({**GOOD, "tolerances": {"top1_drop": 0.1}}, "r.toml")
    expected = msgspec.structs.replace(DEFAULT_TOLERANCES["fp16"], top1_drop=0.1)
    assert recipe.tolerances == expected


def test_the_shipped_set():
    wanted = {f"smt_{m}-{p}-224" for m in "tsbl" for p in ("fp32", "fp16")}
    assert wanted | {"smt_l-fp32-384", "smt_l-fp16-384"} <= {path.stem for path in SHIPPED}


def test_shipped_recipe_takes_the_size_or_the_smallest():
    assert shipped_recipe("smt_l", "fp16", (384, 384)).stem == "smt_l-fp16-384"
    assert shipped_recipe("smt_l", "fp16", (100, 90)).stem == "smt_l-fp16-224"
    assert shipped_recipe("smt_l", "fp16", None).stem == "smt_l-fp16-224"
    assert shipped_recipe("resnet", "fp16", None) is None


@pytest.mark.parametrize(
    ("extra", "key", "near"),
    [
        ({"modle": 1}, "modle", "model"),
        ({"Softmax": True}, "Softmax", "softmax"),
        ({"tolerances": {"relative_rsm": 1}}, "tolerances.relative_rsm", "relative_rms"),
        ({"architecture": {"depth": []}}, "architecture.depth", "depths"),
        ({"islands": [{"mach": "a"}]}, "islands.mach", "match"),
        ({"rewrites": {"head": "merged"}}, "rewrites.head", "heads"),
        ({"preprocessing": {"sizepx": [1, 1]}}, "preprocessing.sizepx", "size_px"),
        ({"sam": {"dims": 8}}, "sam.dims", "dim"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(extra, key, near):
    assert refusal({**GOOD, **extra}) == f"r.toml: unknown key {key}. Did you mean {near!r}?"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 0}, "batch: Expected `int` >= 1, got 0"),
        ({"batch": 10**12}, "batch: Expected `int` <= 4096, got 1000000000000"),
        ({"batch": "8"}, "batch: Expected `int | null`, got `str`"),
        ({"image_size": [224, 0]}, "image_size[1]: Expected `int` >= 1, got 0"),
        ({"image_size": 224}, "image_size: Expected `array | null`, got `int`"),
        ({"image_size": [1, 2, 3]}, "image_size: Expected `array` of length 2, got 3"),
        (
            {"precision": "int4"},
            "precision: expected one of 'fp32', 'fp16', 'int8', 'fp8', got 'int4'",
        ),
        (
            {"precision": ["fp16"]},
            "precision: expected one of 'fp32', 'fp16', 'int8', 'fp8', got ['fp16']",
        ),
        ({"tolerances": {"top1_drop": 6}}, "tolerances.top1_drop"),
        ({"tolerances": 1}, "tolerances"),
        ({"model": "smt-t"}, "Did you mean 'smt_t'?"),
        ({"image_size": [31, 99]}, "image size 31x99 is below 32x32"),
        ({"features": True, "softmax": True}, "features and softmax exclude each other"),
        ({"features": True, "class_names": "n.txt"}, "features and class_names exclude"),
        ({"ema": True}, "ema takes the averaged weights of a checkpoint: give weights"),
        ({"sam": {"dim": 64}}, "belong to model 'sam'"),
        ({"precision": "fp32", "io_dtype": "fp16"}, "belong to precision 'fp16'"),
        ({"architecture": SMALL}, "name it anew"),
        ({"architecture": SMALL, "model": "../up"}, "'../up' cannot name a folder"),
        ({"architecture": {**SMALL, "stem_kernel": 4}, "model": "own"}, "must be odd"),
        ({"preprocessing": {"size_px": [192, 192]}}, "is not image_size = (224, 224)"),
        ({"rewrites": {"heads": "separate", "aggregation": "grouped"}}, "needs aggregation"),
        ({"model": "sam", "softmax": True}, "softmax does not apply to 'sam'"),
        ({"model": "sam", "sam": {"dim": 10, "heads": 4}}, "dim 10 is not divisible by heads 4"),
    ],
)
def test_what_does_not_fit_is_refused_by_path_and_value(change, said):
    assert said in refusal({**GOOD, **change})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0, -1.0, 1.0])
@pytest.mark.parametrize("field", ["relative_rms", "max_error"])
def test_a_tolerance_that_nothing_breaks_is_refused(field, value):
    limits = msgspec.to_builtins(DEFAULT_TOLERANCES["fp16"])
    assert field in refusal({**GOOD, "tolerances": {**limits, field: value}})


def test_default_tolerances_are_the_precisions():
    assert recipe_from_dict(GOOD, "").tolerances == DEFAULT_TOLERANCES["fp16"]
    plain = {"model": "smt_t", "image_size": [224, 224]}
    assert recipe_from_dict(plain, "").tolerances == DEFAULT_TOLERANCES["fp32"]


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({}, "smt_t-fp16-224"),
        ({"image_size": [192, 256]}, "smt_t-fp16-192x256"),
        ({"features": True, "batch": 8}, "smt_t-features-b8-fp16-224"),
        ({"softmax": True, "precision": "fp32"}, "smt_t-softmax-fp32-224"),
        ({"architecture": SMALL, "model": "own.v2"}, "own.v2-fp16-224"),
    ],
)
def test_names(extra, name):
    assert recipe_from_dict({**GOOD, **extra}, "").name == name


def test_paths_are_relative_to_the_recipe(tmp_path):
    path = tmp_path / "r.toml"
    text = 'model = "smt_t"\nimage_size = [224, 224]\nweights = "w/a.pth"\nclass_names = "/n.txt"\n'
    path.write_text(text)
    recipe = read_recipe(path)
    assert (recipe.weights, recipe.class_names) == (str(tmp_path / "w/a.pth"), "/n.txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model = ", "is not a recipe in TOML"),
        (b"PK\x03\x04\xfa\xff", "A checkpoint goes after --weights"),
        (b"x = " + b"[" * 5000, "is not a recipe in TOML"),
        (b"x = " + b"9" * 5000, "is not a recipe in TOML"),
        (b"model = 1979-05-27", "r.toml"),
        (b"", "missing required field `model`"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, said):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"r\.toml") as caught:
        read_recipe(path)
    assert said in str(caught.value)


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(InputError, match=r"no such recipe: .*gone.toml.*--model"):
        read_recipe(tmp_path / "gone.toml")
    with pytest.raises(InputError, match=r"cannot read the recipe .*: Is a directory"):
        read_recipe(tmp_path)


KEYS = st.sampled_from(
    [*Recipe.__struct_fields__, *SMALL, "dim", "heads", "expand", "relative_rms", "max_error",
     "cosine", "top1_agreement", "match", "reason", "size_px", "mean", "std", "channels", "linear"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["smt_t", "sam", "own", "fp16", "fp32", "merged", "RGB", 32, 224]),
    st.lists(st.integers(1, 300), min_size=2, max_size=4),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=6),
    st.sampled_from([{}, GOOD, {**GOOD, "model": "sam"}]),
)
@settings(max_examples=300, deadline=None)
def test_anything_is_a_recipe_or_an_input_error(changes, base):
    try:
        recipe = recipe_from_dict({**base, **changes}, "r.toml")
    except InputError:
        return
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe
    assert "/" not in recipe.name


def test_shipped_recipes_hold_only_what_they_need():
    for path in SHIPPED:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.stem.split("-")[2] == "cpu":
            assert data.pop("quantization") == {"target": "cpu"}
        keys = data.keys()
        if "weights" in keys:  # the example that is trained
            assert keys - {"model", "image_size", "precision", "tolerances"} == {
                *("weights", "class_names", "architecture", "preprocessing"),
            }
        elif path.stem.split("-")[1] in QUANTIZED:  # whose tolerances depend on the weights
            assert keys == {"model", "image_size", "precision"}
        else:
            assert keys == {"model", "image_size", "precision", "tolerances"}
