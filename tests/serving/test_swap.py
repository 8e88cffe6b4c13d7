"""A new version put in a bundle's place, under load."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http as triton_http
from conftest import rewrite_manifest
from safetensors.torch import save_file
from serve_process import serving, until

import sam_deploy
from sam_deploy.exporter import export_recipe

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def newer(tiny_model, tiny_recipe, tmp_path_factory):
    """Another model of the same form."""
    state = tiny_model().state_dict()
    state["head.weight"] = state["head.weight"].roll(1, 0)
    path = tmp_path_factory.mktemp("checkpoint") / "newer.safetensors"
    save_file(state, path)
    recipe = tiny_recipe(precision="fp16", weights=str(path))
    return export_recipe(recipe, out=tmp_path_factory.mktemp("newer")).bundle


def put(bundle, place):
    """As a deployment does: beside it, then in one step in its place."""
    copied = shutil.copytree(bundle, place.with_name("coming"))
    if place.exists():
        place.rename(place.with_name("going"))
    copied.rename(place)
    shutil.rmtree(place.with_name("going"), ignore_errors=True)


def test_it_is_swapped_without_a_failed_request_and_a_broken_one_is_refused(
    tiny_bundle, newer, tmp_path
):
    place = tmp_path / "m"
    put(tiny_bundle, place)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    old, new = (sam_deploy.load(bundle)(x) for bundle in (tiny_bundle, newer))
    assert not np.allclose(old, new, atol=1e-3)
    answers, failures, stop = [], [], threading.Event()

    def hammer():
        with triton_http.InferenceServerClient(server.rest) as client:
            while not stop.is_set():
                try:
                    sent = triton_http.InferInput("input", [1, 3, 64, 64], "FP32")
                    sent.set_data_from_numpy(x)
                    found = client.infer("m", [sent])
                    answers.append(
                        (found.get_response()["model_version"], found.as_numpy("logits"))
                    )
                except Exception as error:
                    failures.append(error)

    with serving(place) as server:
        with ThreadPoolExecutor(4) as threads:
            for _ in range(4):
                threads.submit(hammer)
            put(newer, place)
            until(lambda: server.counted("sam_swaps_total", outcome="taken") == 1, 40)
            reached = len(answers)
            until(lambda: len(answers) > reached + 20)
            model = place / "model.onnx"
            damaged = model.read_bytes()[:-9] + b"123456789"
            model.unlink()
            model.write_bytes(damaged)
            until(lambda: server.counted("sam_swaps_total", outcome="refused") == 1, 40)
            reached = len(answers)
            until(lambda: len(answers) > reached + 20)
            stop.set()
        assert failures == []
        for version, y in answers:
            expected = {"1": old, "2": new}[version]
            np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)
        versions = [version for version, _ in answers]
        assert {"1", "2"} == set(versions)
        assert versions[-1] == "2"
        (refused,) = [line for line in server.lines if "is refused" in line["event"]]
        assert "m: the new version is refused, version 2 stays: bundle" in refused["event"]
        assert "damaged" in refused["event"]
        assert len(server.workers()) == 1


def test_a_version_that_gives_other_outputs_than_it_says_is_refused(tiny_bundle, newer, tmp_path):
    """Whole by its hashes, and wrong: only running it tells."""
    import msgspec

    from sam_deploy.bundle import file_infos

    place = tmp_path / "m"
    put(tiny_bundle, place)
    with serving(place) as server:
        wrong = shutil.copytree(tiny_bundle, tmp_path / "wrong")
        shutil.copy(newer / "model.onnx", wrong / "model.onnx")
        rewrite_manifest(wrong, files=msgspec.to_builtins(file_infos(wrong)))
        put(wrong, place)
        until(lambda: server.counted("sam_swaps_total", outcome="refused") == 1, 40)
        (refused,) = [line for line in server.lines if "is refused" in line["event"]]
        assert "does not give what the bundle keeps as its example" in refused["event"]
        assert server.get("/v2/models/m/versions/1/ready")[0] == 200
