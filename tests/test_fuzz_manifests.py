"""No manifest makes `sam-inspect`, `sam-predict` or `load` fail otherwise than by one message."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import ended, fuzz, mutated, restructured

import sam_deploy
from sam_deploy.bundle import write_manifest
from sam_deploy.cli import inspect, predict
from sam_deploy.errors import BundleError, SamDeployError
from sam_deploy.manifest import manifest_from_json, manifest_to_json
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    """A copy whose manifest the tests overwrite, with a right sum; every other file stays."""
    return Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("bundles") / "b"))


@pytest.fixture(scope="module")
def good(tiny_bundle):
    return json.loads((tiny_bundle / "manifest.json").read_bytes())


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "one.png"
    next(synthetic_images(1)).save(path)
    return path


def drawn(data, good):
    """A manifest of another structure, or one with other bytes."""
    if data.draw(st.booleans()):
        return json.dumps(data.draw(restructured(good))).encode()
    return data.draw(mutated([json.dumps(good).encode(), json.dumps(good["recipe"]).encode()]))


@fuzz(1000)
@given(data=st.data())
def test_it_is_refused_or_means_what_it_says(good, data):
    try:
        manifest = manifest_from_json(drawn(data, good), "m")
    except BundleError:
        return
    assert manifest_from_json(manifest_to_json(manifest), "m") == manifest


@fuzz(300)
@given(data=st.data())
def test_inspecting_it(bundle, good, data):
    write_manifest(bundle, drawn(data, good))
    code, answer = ended(inspect.main, bundle)
    if code == 0:
        assert answer.keys() == good.keys()
        assert inspect.main([str(bundle)]) == 0  # the table too


@fuzz(100)
@given(data=st.data())
def test_loading_it(bundle, good, data):
    write_manifest(bundle, drawn(data, good))
    with contextlib.suppress(SamDeployError):
        sam_deploy.load(bundle)


@fuzz(100)
@given(data=st.data())
def test_predicting_with_it(bundle, good, photo, data):
    write_manifest(bundle, drawn(data, good))
    ended(predict.main, bundle, photo)
