"""A recipe or a bundle that is wrong ends a command with one message, before anything is done."""

import shutil
from pathlib import Path

import pytest
from conftest import rewrite_manifest
from mutations import ended

from sam_deploy.cli import export, inspect, predict
from sam_deploy.manifest import SCHEMA_VERSION

RECIPE = 'model = "smt_t"\nimage_size = [224, 224]\nprecision = "fp16"\n'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ('"fp16"', '"fp61"'),
            "precision: expected one of 'fp32', 'fp16', 'int8', 'fp8', got 'fp61'",
        ),
        (('"fp16"', "16"), "precision: expected one of 'fp32', 'fp16', 'int8', 'fp8', got 16"),
        (("[224, 224]", "[224, 16]"), "image size 224x16 is below 32x32 pixels"),
        (("[224, 224]", '[224, "224"]'), "image_size[1]: Expected `int`, got `str`"),
        (("[224, 224]", "[224, 224]\nbatch = 0"), "batch: Expected `int` >= 1, got 0"),
        (("image_size", "imagesize"), "unknown key imagesize. Did you mean 'image_size'?"),
        (('"smt_t"', '"smt-t"'), "unknown model 'smt-t'"),
        (('"smt_t"', '"smt-t"'), "Did you mean 'smt_t'?"),
        (('"smt_t"', "smt_t"), "is not a recipe in TOML"),
        (
            ("precision", 'rewrites = {heads = "melded"}\nprecision'),
            "rewrites.heads: expected one of 'merged', 'separate', got 'melded'",
        ),
        (
            ("precision", 'preprocessing = {size_px = [224, 224], channels = "rgb"}\nprecision'),
            "preprocessing.channels: expected one of 'RGB', 'BGR', got 'rgb'",
        ),
    ],
)
def test_a_wrong_recipe(tmp_path, change, said):
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.replace(*change))
    code, answer = ended(export.main, path, "--dry-run", "--out", tmp_path / "out")
    assert code == 2
    assert answer["error"].startswith(str(path))
    assert said in answer["error"]


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def refusals(bundle):
    """What `sam-inspect` and `sam-predict` say, which is the same."""
    inspected = ended(inspect.main, bundle)
    assert inspected == ended(predict.main, bundle, "photo.png")
    assert inspected[0] == 2
    return inspected[1]["error"]


def test_a_bundle_of_a_newer_schema(bundle):
    rewrite_manifest(bundle, schema_version=SCHEMA_VERSION + 1, of_the_future=[1])
    said = refusals(bundle)
    assert f"has schema version {SCHEMA_VERSION + 1}; this sam-deploy reads" in said
    assert "export again" in said


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_link_out_of_a_bundle(bundle, tmp_path, name):
    shutil.move(bundle / name, tmp_path / "outside")
    (bundle / name).symlink_to(tmp_path / "outside")
    said = refusals(bundle)
    assert name in said
    assert "reaches outside the bundle" in said
    assert "Nothing of it was loaded" in said
