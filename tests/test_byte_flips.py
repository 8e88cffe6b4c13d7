"""A thousand single bytes changed, one at a time, anywhere in a bundle: none goes unnoticed."""

import random
import shutil
from pathlib import Path

import pytest

import sam_deploy
from sam_deploy.bundle import MANIFEST, MANIFEST_SUM
from sam_deploy.errors import BundleError


def test_a_thousand_flipped_bytes(tiny_bundle, tmp_path):
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    files = sorted(bundle.iterdir())
    assert {MANIFEST, MANIFEST_SUM, "model.onnx"} < {file.name for file in files}
    content = {file: file.read_bytes() for file in files}
    generator = random.Random(0)
    for turn in range(1000):
        file = files[turn % len(files)]  # as often in the short ones as in the model
        place = generator.randrange(len(content[file]))
        flipped = bytearray(content[file])
        flipped[place] ^= generator.randrange(1, 256)
        file.write_bytes(flipped)
        with pytest.raises(BundleError) as caught:
            sam_deploy.load(bundle)
        said = str(caught.value).replace(str(bundle), "")
        assert file.name in said, f"byte {place} of {file.name}: {said}"
        file.write_bytes(content[file])
    sam_deploy.load(bundle)
