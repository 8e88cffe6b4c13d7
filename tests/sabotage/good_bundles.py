"""Good bundles to break, as fixtures. Read only: `broken` copies them.

A plugin and no conftest.py: other tests import the one above by its name.
"""

import sys
from pathlib import Path

import msgspec
import pytest
from broken import judged, typed

from sam_deploy.exporter import export_recipe
from sam_deploy.parity import synthetic_samples
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import read_recipe, recipe_from_dict

ROOT = Path(__file__).parents[2]
SIZE = Preprocessing.for_size(64, 64)


@pytest.fixture(scope="session")
def tiny(tiny_recipe, tmp_path_factory):
    """The tiny SMT with golden weights, in FP32."""
    return export_recipe(tiny_recipe(), out=tmp_path_factory.mktemp("tiny")).bundle


@pytest.fixture(scope="session")
def tiny_judged(tiny_checkpoint):
    """The verdict on a bundle of the tiny SMT."""
    return lambda bundle, **asked: judged(bundle, weights=tiny_checkpoint, **asked)


@pytest.fixture(scope="session")
def tiny_fp16(tiny):
    return typed(tiny, "fp16", validation=synthetic_samples("input", 8, SIZE))


@pytest.fixture(scope="session")
def tiny_int8(tiny):
    return typed(
        tiny,
        "int8",
        validation=synthetic_samples("input", 8, SIZE),
        calibration=synthetic_samples("input", 16, SIZE, seed=7),
    )


@pytest.fixture(scope="session")
def sam_recipe():
    """The SAM module alone, with seeded random weights."""
    data = {"model": "sam", "sam": {"dim": 24, "heads": 4}, "image_size": [5, 8]}
    return recipe_from_dict({**data, "plans": {"engines": ["none"]}}, "a test's recipe")


@pytest.fixture(scope="session")
def sam(sam_recipe, tmp_path_factory):
    """Its bundle, in FP32."""
    return export_recipe(sam_recipe, out=tmp_path_factory.mktemp("sam")).bundle


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The small SMT that was trained on real digits, in FP32."""
    recipe = read_recipe(ROOT / "export" / "smt_digits-fp32-32.toml")
    plans = msgspec.structs.replace(recipe.plans, engines=["none"])
    recipe = msgspec.structs.replace(recipe, plans=plans)
    return export_recipe(recipe, out=tmp_path_factory.mktemp("digits")).bundle


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """120 digits that it was not trained on, in a folder for each class."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import digits_data
    finally:
        sys.path.remove(str(ROOT / "examples"))
    folder = tmp_path_factory.mktemp("images") / "digits"
    digits_data.write(folder, limit=120)
    return folder / "test"
