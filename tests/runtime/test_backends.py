"""What `load` picks on this machine, what it says of it, and that nothing is picked in silence."""

import shutil

import msgspec
import numpy as np
import onnxruntime
import pytest
from conftest import rewrite_manifest

import sam_deploy
from sam_deploy.bundle import file_infos, read_bundle
from sam_deploy.errors import BundleError, CheckFailed, InputError, MachineError
from sam_deploy.example import Example, read_example, write_example
from sam_deploy.runtime import load
from sam_deploy.runtime.onnx_runner import CUDA


def with_example(bundle, inputs, outputs):
    write_example(bundle, inputs, outputs)
    rewrite_manifest(bundle, files=msgspec.to_builtins(file_infos(bundle)))
    return bundle


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def test_it_says_what_it_picked_and_why_not_the_others(tiny_bundle):
    chosen = load(tiny_bundle).chosen
    assert (chosen.name, chosen.artefact) == ("cpu", "model.onnx")
    assert chosen.backend == "onnxruntime CPUExecutionProvider"
    assert list(chosen.passed_over) == ["tensorrt", "tensorrt-rtx", "cuda", "openvino"]
    assert "sam-export --rebuild" in chosen.passed_over["tensorrt"]
    assert "pip install 'sam-deploy[cuda]'" in chosen.passed_over["cuda"]
    assert "pip install 'sam-deploy[openvino]'" in chosen.passed_over["openvino"]
    assert str(chosen).startswith("model.onnx on onnxruntime CPUExecutionProvider (not tensorrt: ")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "cuda", "openvino"])
def test_what_is_required_runs_or_nothing_does(tiny_bundle, backend):
    with pytest.raises(MachineError):
        load(tiny_bundle, backend)


def test_a_provider_that_onnxruntime_drops_is_noticed(tiny_bundle, monkeypatch):
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(MachineError, match="CUDAExecutionProvider did not start here"),
    ):
        load(tiny_bundle, "cuda")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        chosen = load(tiny_bundle).chosen
    assert chosen.name == "cpu"
    assert "did not start here" in chosen.passed_over["cuda"]


def test_contexts(tiny_bundle):
    with pytest.raises(InputError, match="contexts is 0; expected 1 or more"):
        load(tiny_bundle, contexts=0)


def test_the_example_is_the_reference_and_of_two_samples(tiny_bundle):
    manifest = read_bundle(tiny_bundle)
    example = read_example(tiny_bundle, manifest)
    assert {name: x.shape for name, x in example.inputs.items()} == {"input": (2, 3, 64, 64)}
    found = sam_deploy.load(tiny_bundle).run(example.inputs)
    assert example.problem(found, manifest.recipe.tolerances) is None
    assert not np.allclose(*example.outputs["logits"])


def test_an_engine_of_other_outputs_is_not_handed_out(copied):
    example = read_example(copied, read_bundle(copied))
    outputs = {"logits": example.outputs["logits"] * np.float32(1.05)}
    with_example(copied, example.inputs, outputs)
    said = "logits is off by a relative RMS of .*, at most .*It is not used"
    with pytest.raises(CheckFailed, match=f"(?s)^nothing runs {copied} here:.*cpu: .*{said}"):
        load(copied)
    with pytest.raises(CheckFailed, match=said):
        load(copied, "cpu")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_what_came_out_is_never_close(tiny_bundle, bad):
    manifest = read_bundle(tiny_bundle)
    example = read_example(tiny_bundle, manifest)
    found = {"logits": np.full_like(example.outputs["logits"], bad)}
    assert "off by a relative RMS" in example.problem(found, manifest.recipe.tolerances)


def test_an_example_of_other_names_or_none_at_all(copied):
    example = read_example(copied, read_bundle(copied))
    with_example(copied, {"x": example.inputs["input"]}, example.outputs)
    with pytest.raises(BundleError, match="holds inputs/x, outputs/logits; expected inputs/input"):
        load(copied)
    (copied / "example.npz").write_bytes(b"PK\x03\x04 not")
    rewrite_manifest(copied, files=msgspec.to_builtins(file_infos(copied)))
    with pytest.raises(BundleError, match=r"example\.npz cannot be read"):
        load(copied)
    (copied / "example.npz").unlink()
    rewrite_manifest(copied, files=msgspec.to_builtins(file_infos(copied)))
    with pytest.raises(BundleError, match=r"example\.npz: not in the manifest"):
        load(copied)


def test_integers_are_equal_or_all_but_one(tiny_bundle):
    limits = read_bundle(tiny_bundle).recipe.tolerances
    expected = np.arange(400)
    example = Example({}, {"y": expected})
    assert example.problem({"y": expected}, limits) is None
    shifted = np.where(expected < 100, -1, expected)
    said = "100 of 400 elements of y are not the reference's"
    assert example.problem({"y": shifted}, limits) == said
    assert "has shape (2,)" in example.problem({"y": expected[:2]}, limits)
    assert "it has the outputs z" in example.problem({"z": expected}, limits)
