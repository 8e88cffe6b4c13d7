"""The same recipe and weights give the same bundle, whoever exports it, and where."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.exporter import export_recipe
from sam_deploy.manifest import manifest_to_json, reproducible_part

pytestmark = pytest.mark.export

ELSEWHERE = """
import json, sys
from pathlib import Path
from sam_deploy.exporter import export_recipe
from sam_deploy.recipe import recipe_from_dict

for data in json.load(sys.stdin):
    export_recipe(recipe_from_dict(data, "a test's recipe"), out=Path("out"))
"""


@pytest.fixture(scope="module")
def recipes(tiny_recipe, tmp_path_factory):
    """FP16 and INT8 of one model, calibrated on real arrays."""
    calibration = tmp_path_factory.mktemp("data") / "calibration.npz"
    rows = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
    np.savez(calibration, input=rows)
    int8 = {"image_size": [32, 32], "calibration": str(calibration)}
    int8["tolerances"] = {"relative_rms": 0.1, "max_error": 0.2, "top1_agreement": 0.0}
    return [tiny_recipe(precision="fp16"), tiny_recipe(precision="int8", **int8)]


@pytest.fixture(scope="module")
def here(recipes, tiny_bundle, tmp_path_factory):
    """The bundles as this process exports them."""
    out = tmp_path_factory.mktemp("here")
    assert read_bundle(tiny_bundle).name == recipes[0].name
    return [tiny_bundle, export_recipe(recipes[1], out=out).bundle]


@pytest.fixture(scope="module")
def elsewhere(recipes, tmp_path_factory):
    """The same from a process with other hashes, another folder and another environment."""
    folder = tmp_path_factory.mktemp("a folder of another name")
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=json.dumps([msgspec.to_builtins(recipe) for recipe in recipes]),
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        check=True,
        text=True,
    )
    return [folder / "out" / recipe.name for recipe in recipes]


@pytest.mark.parametrize("which", [0, 1], ids=["fp16", "int8"])
def test_two_exports_give_the_same_bytes(here, elsewhere, which):
    one, other = Path(here[which]), elsewhere[which]
    assert (one / MODEL).read_bytes() == (other / MODEL).read_bytes()
    assert reproducible_part(read_bundle(one)) == reproducible_part(read_bundle(other))


def test_only_times_and_the_machine_are_left_out(here):
    manifest = read_bundle(here[1])
    whole, kept = json.loads(manifest_to_json(manifest)), json.loads(reproducible_part(manifest))
    assert whole["verdicts"]
    assert whole["machine"]
    assert {key for key in whole if whole[key] != kept[key]} == {"verdicts", "machine"}
