"""No recipe makes `sam-export` fail otherwise than by one message."""

import json
import shutil

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from mutations import ended, fuzz, mutated, restructured

from sam_deploy.cli.export import main
from sam_deploy.recipe import recipes_folder

SHIPPED = [path.read_bytes() for path in sorted(recipes_folder().glob("*.toml"))]
WHOLE = {
    "model": "tiny",
    "image_size": [64, 96],
    "precision": "fp16",
    "io_dtype": "fp16",
    "batch": 2,
    "softmax": True,
    "num_classes": 10,
    "class_names": "names.txt",
    "architecture": TINY,
    "tolerances": {"relative_rms": 0.003, "max_error": 0.01, "cosine": 0.9999, "top1_agreement": 1},
    "preprocessing": {"size_px": [64, 96], "resize_px": 96, "mean": [0.5, 0.5, 0.5]},
    "rewrites": {"heads": "merged", "linear": "gemm"},
    "islands": [{"match": "head", "reason": "small values"}],
}
SAM = {"model": "sam", "image_size": [4, 4], "sam": {"dim": 8, "heads": 2, "expand": 2}}

pytestmark = pytest.mark.long


def toml(value):
    """`value` as TOML; what TOML has no form for (None) is left out."""
    if isinstance(value, dict):
        return "{" + ", ".join(lines(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value if item is not None) + "]"
    return json.dumps(value, ensure_ascii=False)


def lines(data):
    return [f"{toml(key)} = {toml(value)}" for key, value in data.items() if value is not None]


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    """Nothing is written into the checkout; what recipes name lies beside them."""
    base = tmp_path_factory.getbasetemp()
    (base / "names.txt").write_text("a name\n")
    for path in recipes_folder().glob("smt_digits.*"):
        shutil.copy(path, base)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("recipes"))
        yield


def plan(folder, content):
    path = folder.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    return ended(main, path, "--dry-run")


@fuzz(1000)
@given(st.sampled_from([WHOLE, SAM]).flatmap(restructured))
def test_a_recipe_of_any_structure(tmp_path_factory, data):
    plan(tmp_path_factory, "\n".join(lines(data)).encode())


@fuzz(1000)
@given(mutated(SHIPPED))
def test_a_shipped_recipe_with_any_bytes_changed(tmp_path_factory, content):
    plan(tmp_path_factory, content)


def test_the_recipes_that_are_changed_are_good_ones(tmp_path_factory):
    for content in (*SHIPPED, *("\n".join(lines(data)).encode() for data in (WHOLE, SAM))):
        assert plan(tmp_path_factory, content)[0] == 0
