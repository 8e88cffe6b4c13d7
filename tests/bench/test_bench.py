"""A bundle beside PyTorch and the stock exports of the untouched model, as a user runs it."""

import csv
import json
import shutil
import sys
from pathlib import Path

import msgspec
import onnx
import pytest
from conftest import rewrite_manifest
from onnx import numpy_helper

from sam_deploy.bench.peers import export_contestants, torch_contestants
from sam_deploy.bench.race import race
from sam_deploy.bundle import MODEL, file_infos, read_bundle
from sam_deploy.cli.bench import main
from sam_deploy.example import Example
from sam_deploy.progress import Progress
from sam_deploy.verification import Asked
from sam_deploy.verification.bundle_reference import bundle_reference

pytestmark = pytest.mark.export
STOCK = {
    "TorchScript export on cpu", "dynamo export on cpu", "dynamo export, onnxslim on cpu",
    "dynamo export, onnxsim on cpu",
}  # fmt: skip
OPENVINO = {"OpenVINO FP32", "OpenVINO BF16"}
INT8 = "OpenVINO INT8"  # of the tiny model, it computes something else, and has no time
FAR = {"fp32": 1e-4, "fp16": 3e-3, "bf16": 0.03, "int8": 0.05}
QUICK = ["--rounds", "2", "--batch", "2", "1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The command sets what threads take; torch is loaded already here, OpenVINO is not."""
    monkeypatch.syspath_prepend(str(Path(sys.prefix) / "openvino"))  # the Makefile puts it there
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def benched(capsys, tiny_checkpoint):
    """Runs the command; its exit code and what it said."""

    def run(*arguments):
        weights = ["--weights", str(tiny_checkpoint), "--threads", "1"]
        code = main([*map(str, arguments), *QUICK, *weights])
        return code, capsys.readouterr()

    return run


@pytest.mark.slow  # it compiles
def test_a_bundle_and_its_peers(tiny_bundle, benched, tmp_path):
    table = tmp_path / "table.csv"
    code, said = benched(tiny_bundle, "--json", "--csv", table)
    assert code == 0, said.err
    result = json.loads(said.out)
    entries = {entry["name"]: entry for entry in result["entries"]}
    assert STOCK | OPENVINO | {"torch eager", f"{tiny_bundle.name} on cpu"} <= set(entries)
    for entry in entries.values():
        assert [timing["batch"] for timing in entry["timings"]] == [2, 1]
        for timing in entry["timings"]:
            assert timing["relative_rms"] < FAR[entry["precision"]]
    left_out = {one["name"]: one["reason"] for one in result["left_out"]}
    assert INT8 in entries or "off by a relative RMS" in left_out[INT8]
    assert "not the one for CUDA" in left_out[f"{tiny_bundle.name} on cuda"]
    assert result["command"].startswith(f"sam-bench {tiny_bundle}")
    assert result["threads"] == 1
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 2 * len(entries)
    assert {row["name"] for row in rows} == set(entries)


def test_the_stock_exports_are_timed_and_agree(tiny_bundle, tiny_checkpoint, tmp_path):
    asked = Asked(weights=tiny_checkpoint)
    subject = bundle_reference(read_bundle(tiny_bundle), asked)
    eager, _ = torch_contestants(tiny_bundle, asked)
    x = subject.examples()
    one_by_one = [{name: a[:1] for name, a in x.items()}, {name: a[1:] for name, a in x.items()}]
    stock, left_out = export_contestants(subject, one_by_one, tmp_path)
    assert left_out == []
    example = {2: Example(x, subject.run(x))}
    entries, left_out = race([eager, *stock], example, 1, Progress())
    assert all(one.name == INT8 and one.disagrees for one in left_out)
    assert entries[0].name == "torch eager"
    assert {entry.name for entry in entries[1:]} - {INT8} == STOCK | OPENVINO


def test_the_table(tiny_bundle, benched):
    code, said = benched(tiny_bundle, "--no-peers")
    assert code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == [
        "precision", "batch", "ms", "spread", "samples/s", "error", "load", "s", "peak", "MB",
    ]  # fmt: skip
    assert lines[1].startswith(f"{tiny_bundle.name} on ")
    assert any(line.startswith(f"left out: {tiny_bundle.name} on cuda: ") for line in lines)


def test_a_bundle_that_computes_something_else_is_exit_code_1(tiny_bundle, benched, tmp_path):
    wrong = shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name)
    model = onnx.load(wrong / MODEL)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.5, weight.name))
    onnx.save(model, wrong / MODEL)
    rewrite_manifest(wrong, files=msgspec.to_builtins(file_infos(wrong)))
    code, said = benched(wrong, "--no-peers")
    assert code == 1
    assert f"error: {tiny_bundle.name} on cpu: " in said.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--batch", "0"], "the batches are 0"),
        (["--batch", "1", "1"], "each once"),
        (["--rounds", "0"], "there are 0 rounds"),
        (["--threads", "0"], "there are 0 threads"),
        (["--csv", "/no/such/folder/a.csv"], "expected a file's name in a folder that is there"),
    ],
)
def test_bad_numbers(tiny_bundle, capsys, flags, said):
    assert main([str(tiny_bundle), "--no-peers", *flags]) == 2
    assert said in capsys.readouterr().err


def test_where_no_bundle_runs_it_is_exit_code_3(tiny_bundle, benched, tmp_path):
    torn = shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name)
    (torn / MODEL).write_bytes(b"no graph")
    rewrite_manifest(torn, files=msgspec.to_builtins(file_infos(torn)))
    code, said = benched(torn, "--no-peers")
    assert (code, said.out) == (3, "")
    assert f"no bundle runs here: {tiny_bundle.name} on cuda: " in said.err
    assert "ONNX Runtime refuses" in said.err


def test_bundles_of_two_models_are_two_runs(tiny_bundle, benched, tmp_path):
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    weights = json.loads((other / "manifest.json").read_text())["weights"]
    rewrite_manifest(other, name="other", weights={**weights, "sha256": "0" * 64})
    code, said = benched(tiny_bundle, other)
    assert code == 2
    assert "holds other weights than" in said.err
    assert benched(tiny_bundle, tiny_bundle)[0] == 2
