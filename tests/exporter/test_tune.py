"""`--tune`: the forms are measured, held against PyTorch, and remembered."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import onnx
import pytest
import torch

from sam_deploy.bundle import read_bundle
from sam_deploy.cli.export import main
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.exporter import (
    Request,
    calibrated,
    export,
    export_recipe,
    timed_form,
    tune,
)
from sam_deploy.models import SAM
from sam_deploy.precision.quantize import Span
from sam_deploy.recipe import read_recipe, recipe_from_dict
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites import PIPELINE
from sam_deploy.runtime import load
from sam_deploy.runtime.onnx_runner import CPU

pytestmark = pytest.mark.long
LOOSE = {"relative_rms": 0.1, "max_error": 0.5, "cosine": 0.99, "top1_agreement": 0.5}
ON_BOTH = """
import os
from pathlib import Path
import msgspec
from sam_deploy.exporter import Request, export_recipe, tune
from sam_deploy.recipe import recipe_from_dict
tune._ORDER = ("aggregation",)
data = {"model": "sam", "image_size": [4, 6], "precision": "fp32", "plans": {"engines": ["none"]}}
data["sam"] = {"dim": 32, "heads": 4, "expand": 2}
recipe = recipe_from_dict(data, "a test's recipe")
done = export_recipe(recipe, out=Path(os.environ["OUT"]), request=Request(tune_s=300.0))
print(msgspec.json.encode(done.manifest.tuning).decode())
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def one_option(monkeypatch):
    """Where it does not matter how many forms are tried, nor against what else."""
    monkeypatch.setattr(tune, "_ORDER", ("aggregation",))
    monkeypatch.setattr(timed_form.Forms, "untouched", lambda *_: None)


def sam_recipe(**options):
    data = {"model": "sam", "image_size": [4, 6], "precision": "fp32", **options}
    data |= {"sam": {"dim": 32, "heads": 4, "expand": 2}, "plans": {"engines": ["none"]}}
    return recipe_from_dict(data, "a test's recipe")


def tuned(recipe, out, seconds=300.0):
    return export_recipe(recipe, out=out, request=Request(tune_s=seconds)).manifest


def test_the_manifest_says_what_was_tried(tmp_path):
    recipe = sam_recipe()
    manifest = tuned(recipe, tmp_path / "one")
    report = manifest.tuning
    assert report.complete
    assert not report.remembered
    assert report.start == recipe.rewrites
    assert manifest.recipe.rewrites == report.chosen
    tried = [trial.rewrites for trial in report.trials]
    assert len(tried) == len({msgspec.json.encode(forms) for forms in tried})
    assert all(trial.ratio or trial.refused for trial in report.trials)
    for field in RewriteOptions.__struct_fields__:  # every option was given a chance
        assert len({getattr(forms, field) for forms in [report.start, *tried]}) > 1, field
    assert report.chosen in [report.start, *tried]
    assert report.ratio >= 1.0
    assert report.over_untouched > 0
    assert f"{report.over_untouched:.2f}x as fast as the untouched export" in report.text
    load(tmp_path / "one" / manifest.name).close()

    again = tuned(recipe, tmp_path / "two").tuning
    assert again.remembered
    assert msgspec.structs.replace(again, remembered=False) == report


def test_other_batches_are_searched_anew(tmp_path, one_option):
    tuned(sam_recipe(), tmp_path / "one")
    report = tuned(sam_recipe(batch=3), tmp_path / "two").tuning
    assert not report.remembered
    assert report.batches == [3]


def test_a_torn_memory_is_none(tmp_path, one_option):
    tuned(sam_recipe(), tmp_path / "one")
    (kept,) = (tmp_path / "cache").glob("forms-*")
    kept.write_bytes(kept.read_bytes()[:-20])
    assert not tuned(sam_recipe(), tmp_path / "two").tuning.remembered


def test_no_time_is_the_recipes_forms(tmp_path):
    manifest = tuned(sam_recipe(), tmp_path / "one", seconds=1e-9)
    report = manifest.tuning
    assert (report.complete, report.trials, report.ratio) == (False, [], 1.0)
    assert report.chosen == manifest.recipe.rewrites == sam_recipe().rewrites
    assert not list((tmp_path / "cache").glob("forms-*"))  # half a search is none


def test_a_faster_form_that_is_wrong_is_not_taken(tmp_path, monkeypatch, one_option):
    """Sabotage: all but the recipe's form compute something else, and would win every race."""
    real, start = timed_form._runner, sam_recipe().rewrites
    monkeypatch.setattr(tune, "ratio_of", lambda *_: 2.0)

    def broken(path, *_, **__):
        runner = real(path, CPU)
        if path.name != "form-0.onnx":
            run = runner.run
            runner.run = lambda x: {name: 1.01 * y for name, y in run(x).items()}
        return runner

    monkeypatch.setattr(timed_form, "_runner", broken)
    manifest = tuned(sam_recipe(), tmp_path / "one")
    assert manifest.recipe.rewrites == start
    assert manifest.tuning.trials
    assert all(trial.ratio is None for trial in manifest.tuning.trials)
    assert all("does not compute what PyTorch does" in t.refused for t in manifest.tuning.trials)


def test_a_faster_form_that_loses_more_to_int8_is_not_taken(tmp_path, monkeypatch, one_option):
    """Sabotage: all but the recipe's form are quantized to ranges of a tenth, and would win."""
    honest, made = calibrated.insert_qdq_around, []

    def clipping(graph, layers, ranges, weights):
        made.append(graph)
        tenths = {name: Span(low / 10, high / 10) for name, (low, high) in ranges.items()}
        honest(graph, layers, tenths if 1 < len(made) <= 3 else ranges, weights)

    monkeypatch.setattr(calibrated, "insert_qdq_around", clipping)
    monkeypatch.setattr(tune, "ratio_of", lambda *_: 2.0)
    recipe = sam_recipe(
        precision="int8", calibration="synthetic", quantization={"target": "cpu"}, tolerances=LOOSE
    )
    report = tuned(recipe, tmp_path).tuning
    assert report.chosen == report.start
    assert len(report.trials) == 2
    assert all("as far as the recipe's forms" in trial.refused for trial in report.trials)


def test_a_form_that_is_not_faster_is_not_taken(tmp_path, monkeypatch, one_option):
    monkeypatch.setattr(tune, "ratio_of", lambda *_: 1.01)  # within noise
    manifest = tuned(sam_recipe(), tmp_path / "one")
    assert manifest.tuning.chosen == sam_recipe().rewrites


def test_a_lucky_round_is_not_kept(tmp_path, monkeypatch, one_option):
    found = iter([1.5, *[0.9] * 50])
    monkeypatch.setattr(tune, "ratio_of", lambda *_: next(found))
    report = tuned(sam_recipe(), tmp_path / "one").tuning
    assert report.trials[0].ratio == 1.5
    assert (report.chosen, report.ratio) == (report.start, 1.0)


def test_where_the_untouched_export_is_faster_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "_ORDER", ("aggregation",))
    monkeypatch.setattr(tune, "ratio_of", lambda *_: 0.9)
    for place in ("measured", "remembered"):
        done = export_recipe(sam_recipe(), out=tmp_path / place, request=Request(tune_s=300))
        assert done.manifest.tuning.over_untouched == 0.9
        assert done.manifest.tuning.remembered == (place == "remembered")
        assert any("the rewriting does not pay for this network" in note for note in done.notes)


def test_what_no_exporter_takes_is_not_raced(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "_ORDER", ("aggregation",))

    def fails(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(timed_form, "onnx_from_module", fails)
    report = tuned(sam_recipe(), tmp_path).tuning
    assert report.complete
    assert report.over_untouched is None


def test_recipes_forms_that_are_wrong_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(timed_form.Example, "problem", lambda *_, **__: "it is off")
    with pytest.raises(CheckFailed, match="it is off"):
        tuned(sam_recipe(), tmp_path / "one")


def test_int8_is_timed_as_int8_and_shipped_with_real_ranges(tmp_path, monkeypatch, one_option):
    timed, real = [], timed_form.ratio_of

    def watched(one, other, examples):
        timed.extend(graph_of[id(runner)] for runner in (one, other))
        return real(one, other, examples)

    def started(path, *rest, **options):
        runner = start(path, *rest, **options)
        graph_of[id(runner)] = (runner, onnx.load(path))
        return runner

    graph_of, start = {}, timed_form.start_onnx
    monkeypatch.setattr(timed_form, "start_onnx", started)
    monkeypatch.setattr(tune, "ratio_of", watched)
    recipe = sam_recipe(
        precision="int8", calibration="synthetic", quantization={"target": "cpu"}, tolerances=LOOSE
    )
    manifest = tuned(recipe, tmp_path / "one")
    assert manifest.tuning.trials
    assert timed
    assert all("QuantizeLinear" in {n.op_type for n in graph.graph.node} for _, graph in timed)
    assert manifest.precision.quantization.calibration.samples == 128
    # Another precision is another search.
    assert not tuned(sam_recipe(), tmp_path / "two").tuning.remembered


def test_a_runtime_that_does_not_start_is_left_out_and_said(tmp_path, monkeypatch, one_option):
    monkeypatch.setattr(tune, "openvino_lacks", lambda: None)  # it is not here
    done = export_recipe(sam_recipe(), out=tmp_path, request=Request(tune_s=300))
    assert any(
        "the forms are not tried on OpenVINO: OpenVINO is not installed" in n for n in done.notes
    )
    assert done.manifest.tuning.trials


def test_every_runtime_is_tried_and_the_fastest_is_the_target(tmp_path):
    """OpenVINO is not in the tests' own path: a process of its own has it."""
    script = tmp_path / "tuned.py"
    script.write_text(ON_BOTH)
    where = Path(sys.prefix) / "openvino"
    environment = {**os.environ, "PYTHONPATH": str(where), "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    targets = {trial["target"] for trial in found["trials"]}
    assert len(targets) == 2
    assert any(target.startswith("openvino CPU in ") for target in targets)
    assert found["target"] in targets
    assert all(trial["ratio"] for trial in found["trials"])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_no_seconds(seconds, tmp_path, capsys):
    arguments = ["--model", "smt_t", "--tune", f"--tune-seconds={seconds}", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "expected more than 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_request_says_what_is_wrong():
    with pytest.raises(InputError, match="seconds to tune in"):
        Request(tune_s=0.0).check(sam_recipe())


def test_seconds_without_tune(tmp_path, capsys):
    assert main(["--model", "smt_t", "--tune-seconds", "5", "--out", str(tmp_path)]) == 2
    assert "give that, too" in capsys.readouterr().err


def test_the_chosen_forms_are_what_is_exported_and_saved(tmp_path, monkeypatch, one_option):
    monkeypatch.setattr(tune, "ratio_of", lambda *_: 1.5)  # every new form is the faster
    given, saved = tmp_path / "sam.toml", tmp_path / "saved.toml"
    given.write_text(
        'model = "sam"\nprecision = "fp32"\nimage_size = [4, 6]\n'
        "[sam]\ndim = 32\nheads = 4\nexpand = 2\n[plans]\nengines = ['none']\n"
    )
    out = ["--out", str(tmp_path / "one"), "--save-recipe", str(saved)]
    assert main([str(given), "--tune", *out]) == 0
    (bundle,) = (tmp_path / "one").iterdir()
    manifest = read_bundle(bundle)
    assert manifest.tuning.chosen != manifest.tuning.start
    assert read_recipe(saved).rewrites == manifest.recipe.rewrites == manifest.tuning.chosen
    again = export_recipe(read_recipe(saved), out=tmp_path / "two").manifest
    assert again.files["model.onnx"] == manifest.files["model.onnx"]


@pytest.mark.parametrize(("seconds", "forms"), [(1e-9, 1), (300.0, 2)])
def test_rules_of_ones_own_make_every_form_and_each_once(
    tmp_path, monkeypatch, one_option, seconds, forms
):
    monkeypatch.setattr(tune, "ratio_of", lambda *_: 1.0)  # none is chosen, and made once more
    calls = []

    def counted(module, options):
        calls.append(options)
        return rule.rewrite(module, options)

    rule = next(rule for rule in PIPELINE if rule.name == "fold_batch_norm")
    rules = [dataclasses.replace(one, rewrite=counted) if one is rule else one for one in PIPELINE]
    example = (torch.randn(1, 24, 32), 4, 6)
    done = export(SAM(32, 4, 2), example, out=tmp_path / "own", pipeline=rules, tune_s=seconds)
    assert len(calls) == 1 + len(done.manifest.tuning.trials) >= forms
