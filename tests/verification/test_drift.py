"""Receipts: what is kept of a bundle that passed, and how far the next one may move from it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from conftest import rewrite_manifest

from sam_deploy.bundle import read_bundle
from sam_deploy.cli.parity import main
from sam_deploy.exporter import Request
from sam_deploy.exporter.stages import export_subject
from sam_deploy.recipe import Drift, recipe_from_dict
from sam_deploy.reference import subject_from_recipe
from sam_deploy.rewrites import PIPELINE
from sam_deploy.verification.receipt import read_receipt

pytestmark = pytest.mark.long
AGAINST = "against the receipt: "
LOST = "fold_batch_norm"


def with_drift(bundle, folder, **drift):
    """A copy of the bundle, as if its recipe had said so under [drift]."""
    copy = Path(shutil.copytree(bundle, folder / bundle.name))
    recipe = msgspec.to_builtins(read_bundle(copy).recipe)
    plans = {**recipe["plans"], "profile": {"min": 1, "opt": 2, "max": 3}}  # soon run
    drift = {**recipe["drift"], **drift}
    rewrite_manifest(copy, recipe={**recipe, "plans": plans, "drift": drift})
    return copy


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    # Speed on a busy machine is no part of most of these tests.
    return with_drift(tiny_bundle, tmp_path_factory.mktemp("bundle"), latency=1.0)


def images(count):
    return np.random.default_rng(0).standard_normal((count, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def command(tiny_checkpoint, tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(data, input=images(8))

    def run(bundle, *argv):
        usual = ["--weights", str(tiny_checkpoint), "--data", str(data)]
        return main([str(bundle), *usual, *argv])

    return run


@pytest.fixture(scope="module")
def receipt(bundle, command, tmp_path_factory):
    """Written by the command. Read only."""
    path = tmp_path_factory.mktemp("receipts") / "tiny.json"
    assert command(bundle, "--receipt", str(path)) == 0
    return path


@pytest.fixture
def parity(command, capsys):
    """Runs the command: exit code, what of the receipt passed, its details, all of stderr."""

    def run(bundle, *argv):
        code = command(bundle, "--json", *map(str, argv))
        out, err = capsys.readouterr()
        checks = {
            check["name"].removeprefix(AGAINST): check
            for check in json.loads(out).get("checks", [])
            if check["name"].startswith(AGAINST)
        }
        return SimpleNamespace(
            code=code,
            err=err,
            passed={name: check["passed"] for name, check in checks.items()},
            details={name: check["detail"] for name, check in checks.items()},
        )

    return run


@pytest.fixture
def edited(receipt, tmp_path):
    """Makes another receipt: `edited(change)` lets `change` work on its plain data."""

    def make(change, source=receipt):
        data = json.loads(Path(source).read_bytes())
        change(data)
        path = tmp_path / "edited.json"
        path.write_text(json.dumps(data))
        return path

    return make


def scale(factor):
    def change(data):
        for output in data["parity"]["outputs"]:
            output["relative_rms"] *= factor

    return change


def nodes(more):
    return lambda data: data.update(nodes=data["nodes"] + more)


def size(factor):
    def change(data):
        model = data["files"]["model.onnx"]
        model["bytes"] = int(model["bytes"] * factor)

    return change


def speed(factor):
    return lambda data: data["batch 1"].update(ratio=data["batch 1"]["ratio"] * factor)


def every(*changes):
    return lambda data: [change(data) for change in changes]


def test_it_says_what_was_measured_of_which_bundle(receipt, bundle):
    found, manifest = read_receipt(receipt), read_bundle(bundle)
    assert (found.bundle, found.precision, found.passed) == ("tiny-fp16-64", "fp16", True)
    assert found.files == manifest.files
    assert found.weights == manifest.weights
    assert found.nodes == manifest.graph.nodes
    assert found.fired == manifest.rewrites.fired
    assert found.versions == manifest.versions
    assert found.machine["cpu"]
    assert found.command.startswith(f"sam-parity {bundle} --weights ")
    assert (found.parity.samples, found.parity.backend) == (8, "onnxruntime CPUExecutionProvider")
    assert found.latency.ratio == pytest.approx(
        found.latency.eager_ms / found.latency.bundle_ms, rel=0.05
    )


def test_a_bundle_passes_its_own(parity, bundle, receipt):
    found = parity(bundle, "--against", receipt)
    assert (found.code, set(found.passed.values())) == (0, {True}), found.details
    assert list(found.passed) == ["parity", "nodes", "rules", "size", "latency"]


def test_none_is_written_for_a_bundle_that_fails(parity, bundle, receipt, edited, tmp_path):
    path = tmp_path / "receipt.json"
    assert parity(bundle, "--receipt", path, "--relative-rms", "1e-9").code == 1
    assert not path.exists()
    # nor for one that moved: the old receipt stays
    old = edited(nodes(-1))
    before = old.read_bytes()
    assert parity(bundle, "--against", old, "--receipt", old).code == 1
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("what", "change", "said"),
    [
        ("parity", scale(0.1), "relative RMS logits"),
        ("nodes", nodes(-1), "allowed 0 more"),
        ("rules", lambda data: data["fired"].update(merge_heads=9), "merge_heads fired 9 times"),
        ("size", size(0.98), "allowed 1 % more"),
    ],
    ids=["parity", "nodes", "rules", "size"],
)
def test_what_moved_fails_and_is_named(parity, bundle, edited, what, change, said):
    found = parity(bundle, "--against", edited(change))
    assert found.code == 1
    assert [name for name, passed in found.passed.items() if passed is False] == [what]
    assert said in found.details[what]
    assert f"parity failed: {AGAINST}{what}: " in found.err


def test_lost_speed_fails(parity, tiny_bundle, edited):
    found = parity(tiny_bundle, "--against", edited(speed(100)))
    assert (found.code, found.passed["latency"]) == (1, False)
    assert "times eager PyTorch before" in found.details["latency"]
    assert "allowed 30 % less" in found.details["latency"]


def test_a_receipt_of_another_cpu_is_named_as_such(parity, bundle, edited):
    found = parity(bundle, "--against", edited(lambda data: data["machine"].update(cpu="Z80")))
    assert "the receipt is of another CPU: Z80" in found.details["latency"]


def test_for_the_better_it_may_move_freely(parity, bundle, edited):
    better = edited(every(scale(10), nodes(9), size(2), speed(0.01)))
    found = parity(bundle, "--against", better)
    assert (found.code, set(found.passed.values())) == (0, {True}), found.details


def test_the_recipe_says_how_far_and_never_loosens_rules(parity, bundle, edited, tmp_path):
    moved = every(scale(0.1), nodes(-3), size(0.95))
    loose = with_drift(bundle, tmp_path, parity=20.0, nodes=3, size=0.1)
    assert parity(loose, "--against", edited(moved)).code == 0
    lost = every(moved, lambda data: data["fired"].update(merge_heads=9))
    found = parity(loose, "--against", edited(lost))
    assert [name for name, passed in found.passed.items() if passed is False] == ["rules"]
    exact = with_drift(bundle, tmp_path / "exact", parity=1.0, size=0.0)
    assert parity(exact, "--against", edited(size(0.9999))).passed["size"] is False


def test_drift_is_read_from_the_recipe(tiny_recipe):
    assert tiny_recipe().drift == Drift()
    said = recipe_from_dict(
        {"model": "smt_t", "image_size": [224, 224], "drift": {"latency": 0.5}}, "a recipe"
    )
    assert said.drift == Drift(latency=0.5)


def test_other_samples_are_not_compared_and_do_not_fail(parity, bundle, edited):
    better = edited(scale(0.1))
    found = parity(bundle, "--against", better, "--limit", "5")
    assert (found.code, found.passed["parity"]) == (0, None)
    assert found.details["parity"] == (
        "not compared: the receipt is of 8 npz samples, this run of 5 npz ones"
    )


def test_accuracy_is_held_where_both_have_labels(parity, bundle, edited, tmp_path):
    data, path = tmp_path / "labelled.npz", tmp_path / "labelled.json"
    np.savez(data, input=images(10), labels=np.arange(10))
    given = ("--data", data)
    assert parity(bundle, *given, "--receipt", path).code == 0
    was = read_receipt(path).parity.accuracy
    assert was is not None
    assert parity(bundle, *given, "--against", path).passed["accuracy"] is True

    better = edited(lambda d: d["parity"]["accuracy"].update(top1=was.top1 + 0.6), path)
    found = parity(bundle, *given, "--against", better)
    assert [name for name, passed in found.passed.items() if passed is False] == ["accuracy"]
    assert "allowed 0.5 points less" in found.details["accuracy"]

    np.savez(data, input=images(10))
    found = parity(bundle, *given, "--against", better)
    assert (found.code, found.passed["accuracy"]) == (0, None)
    assert "this run had no labels" in found.details["accuracy"]


def old(data):
    del data["parity"]["tolerances"]["top1_drop"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(bundle="other-fp16-64"), "the receipt is of other-fp16-64"),
        (lambda data: data.update(precision="fp32"), "Give its own receipt"),
        (old, "missing required field `top1_drop`"),
        (lambda data: data.clear(), "is not a receipt of this sam-deploy"),
    ],
    ids=["another bundle", "another precision", "an old one", "an empty one"],
)
def test_a_receipt_that_is_not_its_own_is_bad_input(parity, bundle, edited, change, said):
    found = parity(bundle, "--against", edited(change))
    assert (found.code, found.passed) == (2, {})
    assert said in found.err


def test_what_is_no_receipt_is_bad_input(parity, bundle, tmp_path):
    text = tmp_path / "text.json"
    text.write_text("no JSON")
    for path in (tmp_path / "gone.json", tmp_path, text, bundle / "manifest.json"):
        found = parity(bundle, "--against", path)
        assert found.code == 2, path
        assert str(path) in found.err


@pytest.mark.export
def test_a_rule_that_silently_stops_firing_is_named(capsys, tmp_path):
    recipe = recipe_from_dict(
        {
            "model": "sam",
            "image_size": [4, 4],
            "sam": {"dim": 24, "heads": 4},
            "plans": {"engines": ["none"]},
            "drift": {"parity": 100.0, "latency": 1.0},
        },
        "a test's recipe",
    )

    def exported(out, pipeline):
        return export_subject(
            lambda: subject_from_recipe(recipe),
            recipe,
            out / recipe.name,
            request=Request(),
            progress=None,
            pipeline=pipeline,
        )

    before = exported(tmp_path / "before", PIPELINE)
    now = exported(tmp_path / "now", [rule for rule in PIPELINE if rule.name != LOST])
    # PyTorch's exporter stands in: the graph does not tell
    assert now.manifest.graph == before.manifest.graph
    receipt = str(tmp_path / "receipt.json")
    assert main([str(before.bundle), "--receipt", receipt]) == 0
    assert main([str(now.bundle), "--against", receipt]) == 1
    said = f"parity failed: {AGAINST}rules: {LOST} fired 1 times before, 0 now"
    assert said in capsys.readouterr().err
