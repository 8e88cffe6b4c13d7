"""Bundles that are damaged or foreign are bad input; those that contradict themselves fail."""

import shutil
from contextlib import contextmanager

import pytest
from broken import copied, failures, judged, manifest_of, refused, with_file, with_manifest
from safetensors.torch import load_file, save_file

from sam_deploy.cli.parity import main
from sam_deploy.errors import BundleError
from sam_deploy.progress import Progress
from sam_deploy.verification import Asked, verify

pytestmark = pytest.mark.export
pytest_plugins = ["good_bundles"]

PLAN = {
    "file": "plans/tensorrt-rtx-1.7.1.116-default.plan",
    "flavour": "tensorrt-rtx",
    "version": "1.7.1.116",
    "compute_capabilities": [],
    "gpu": None,
    "profile": {"min": 1, "opt": 8, "max": 32},
    "options": {},
    "build_s": 1.0,
}


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "parity.json"])
def test_a_flipped_bit_is_damage(sam, capsys, file):
    broken = copied(sam)
    content = bytearray((broken / file).read_bytes())
    content[len(content) // 2] ^= 1
    (broken / file).write_bytes(content)
    assert "is damaged" in refused(capsys, broken)


@pytest.mark.parametrize("content", [b"", b"no ONNX at all", "half"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_that_was_never_one_fails_and_is_no_bug(
    tiny, tiny_fp16, tiny_checkpoint, content, precision
):
    bundle = {"fp32": tiny, "fp16": tiny_fp16}[precision]
    if content == "half":
        content = (bundle / "model.onnx").read_bytes()[:5000]
    result = judged(with_file(bundle, "model.onnx", content), weights=tiny_checkpoint)
    reasons = failures(result)
    assert reasons[0].startswith("inputs and outputs: ONNX Runtime refuses")
    assert any(reason.startswith("model.onnx on onnxruntime: ONNX Runtime") for reason in reasons)


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"model": {"kind": "backbone", "num_classes": None}}, "model", "services are told"),
        ({"model": {"parameters": 1}}, "model", "services are told"),
        ({"graph": {"opset": 9}}, "graph", "model.onnx has opset"),
        ({"graph": {"nodes": 9}}, "graph", "model.onnx has 143 nodes, the manifest says 9"),
        ({"recipe": {"batch": 4}}, "inputs and outputs", "model.onnx has a batch of batch, its"),
        ({"class_names": [str(n) for n in range(10)]}, "class names", "they are not ImageNet's"),
    ],
)
def test_a_manifest_that_contradicts_its_recipe_or_its_graph(
    tiny, tiny_checkpoint, changes, name, said
):
    reasons = failures(judged(with_manifest(tiny, **changes), weights=tiny_checkpoint))
    assert reasons[0].startswith(f"{name}: {said}")


@pytest.mark.parametrize("stale", [True, False])
def test_a_plan_that_was_built_from_another_onnx(sam, stale):
    """On a machine without a GPU it does not run, and its passport is read all the same."""
    model = manifest_of(sam)["files"]["model.onnx"]["sha256"]
    plan = {**PLAN, "onnx_sha256": "0" * 64 if stale else model, "bytes": 6}
    result = judged(with_file(sam, PLAN["file"], b"a plan", plans=[plan]))
    assert [one.artefact for one in result.skipped] == [PLAN["file"]]
    (check,) = [check for check in result.checks if check.name == "plans"]
    assert check.passed != stale
    assert result.passed != stale
    if stale:
        assert "was built from another model.onnx than the bundle's" in check.detail


def test_a_plan_of_another_size_than_was_built(sam):
    model = manifest_of(sam)["files"]["model.onnx"]["sha256"]
    plan = {**PLAN, "onnx_sha256": model, "bytes": 7}
    reasons = failures(judged(with_file(sam, PLAN["file"], b"a plan", plans=[plan])))
    assert "built with 7 bytes, the bundle lists 6" in reasons[0]


def test_other_weights_than_were_exported(tiny, tiny_checkpoint, tmp_path, capsys):
    state = load_file(tiny_checkpoint)
    state["head.bias"][0] += 1e-3
    other = tmp_path / "other.safetensors"
    save_file(state, other)
    said = refused(capsys, tiny, "--weights", other)
    assert "other.safetensors holds other weights than the bundle was made from" in said
    assert "give that checkpoint with --weights" in refused(capsys, tiny)


def test_weights_for_a_bundle_that_has_seeded_random_ones(sam, tiny_checkpoint, capsys):
    said = refused(capsys, sam, "--weights", tiny_checkpoint)
    assert "holds seeded random weights, not those of a checkpoint" in said


def test_tolerances_are_not_loosened_by_the_way(sam, capsys):
    flag = ("--relative-rms", "0.01")
    assert "is looser than the recipe's 1e-05" in refused(capsys, sam, *flag)
    assert main([str(sam), *flag, "--allow-looser"]) == 0
    assert main([str(sam), "--relative-rms", "1e-9"]) == 1
    capsys.readouterr()
    beyond = refused(capsys, sam, "--relative-rms", "0.5", "--allow-looser")
    assert "relative_rms: Expected `float` <= 0.1, got 0.5" in beyond


class Meddling(Progress):
    """Does something to the bundle when a stage begins."""

    def __init__(self, name, act):
        self.name, self.act = name, act

    @contextmanager
    def stage(self, name, total=None):
        if name == self.name:
            self.act()
        yield lambda steps: None


@pytest.mark.parametrize("stage", ["load", "parity", "batches"])
@pytest.mark.parametrize("taken_away", [True, False])
def test_a_bundle_that_is_replaced_or_taken_away_meanwhile(sam, tiny, stage, taken_away):
    broken = copied(sam)

    def act():
        shutil.rmtree(broken)
        if not taken_away:
            shutil.copytree(tiny, broken)

    with pytest.raises(BundleError, match="was changed or replaced while it was verified"):
        verify(broken, Asked(), Meddling(stage, act))


def test_the_same_bundle_written_anew_meanwhile_is_the_same(sam):
    broken = copied(sam)

    def act():
        shutil.rmtree(broken)
        shutil.copytree(sam, broken)

    assert verify(broken, Asked(), Meddling("parity", act)).passed
