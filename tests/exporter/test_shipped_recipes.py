"""Every shipped recipe ends in a bundle that PyTorch agrees with and TensorRT-RTX parses, but for
those that are laid out for CPUs.
"""

import msgspec
import pytest
from rtx import Parsed

from sam_deploy.exporter import export_recipe
from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import QUANTIZED, read_recipe, recipes_folder

RECIPES = sorted(recipes_folder().glob("*.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_exports(path, tmp_path):
    recipe = read_recipe(path)
    if recipe.precision in QUANTIZED:
        recipe = msgspec.structs.replace(recipe, calibration=SYNTHETIC)
    done = export_recipe(recipe, out=tmp_path)
    assert done.bundle.name == path.stem
    assert done.manifest.parity[0].passed
    parsed = Parsed((done.bundle / "model.onnx").read_bytes())
    assert parsed.taken != recipe.is_for_cpu
    assert bool(parsed.complaints) == recipe.is_for_cpu
