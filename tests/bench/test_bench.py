"""A bundle beside PyTorch and the stock exports of the untouched model, as a user runs it."""

import csv
import json
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import onnx
import pytest
import torch
from conftest import rewrite_manifest
from onnx import numpy_helper

from sam_deploy.bench.gpu_peers import gpu_contestants, torch_in_fp16
from sam_deploy.bench.peers import export_contestants, torch_contestants
from sam_deploy.bench.plot import bench_svg
from sam_deploy.bench.profile import ModuleTime, Profile, node_medians, unit_of
from sam_deploy.bench.race import race
from sam_deploy.bench.result import BatchTiming, BenchResult, Entry
from sam_deploy.bundle import MODEL, file_infos, read_bundle
from sam_deploy.cli._profile_table import profile_table
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
OPENVINO = {"OpenVINO FP32"}
BF16 = "OpenVINO BF16"  # where the CPU has it
INT8 = "OpenVINO INT8"  # of the tiny model, it computes something else, and has no time
FAR = {"fp32": 1e-4, "fp16": 3e-3, "bf16": 0.03, "int8": 0.05}
SVG = "{http://www.w3.org/2000/svg}"
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
    assert BF16 in entries or "this CPU has no BF16" in left_out[BF16]
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
    reasons = {one.name: one.reason for one in left_out}
    assert "this CPU has no BF16" in reasons.pop(BF16, "this CPU has no BF16")
    assert set(reasons) <= {INT8}
    assert all(one.disagrees for one in left_out if one.name == INT8)
    assert entries[0].name == "torch eager"
    assert {entry.name for entry in entries[1:]} - {INT8, BF16} == STOCK | OPENVINO


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


def test_the_plot_has_a_bar_for_every_time(tiny_bundle, benched, tmp_path):
    plot = tmp_path / "times.svg"
    code, said = benched(tiny_bundle, "--no-peers", "--json", "--plot", plot)
    assert code == 0, said.err
    timings = [t for entry in json.loads(said.out)["entries"] for t in entry["timings"]]
    svg = ElementTree.fromstring(plot.read_text())
    bars = [float(bar.get("width")) for bar in svg.iter(f"{SVG}rect") if bar.get("x")]
    assert len(bars) == len(timings) > 1
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert "batch 1, ms" in texts
    assert "batch 2, ms" in texts
    assert f"{tiny_bundle.name} on cpu" in texts


def test_bars_are_as_long_as_their_times():
    def entry(name, side, *times_ms):
        timings = [
            BatchTiming(
                batch=2**i, median_ms=ms, spread_ms=0, p95_ms=ms, samples_per_s=1, relative_rms=0
            )
            for i, ms in enumerate(times_ms)
        ]
        return Entry(
            name=name, side=side, precision="fp32", load_s=0, peak_bytes=0, timings=timings
        )

    entries = [entry("<a & b>", "peer", 40, 5), entry("ours", "ours", 10, 20)]
    result = BenchResult(
        command="", machine={}, versions={}, threads=1, rounds=1, entries=entries, left_out=[]
    )
    svg = ElementTree.fromstring(bench_svg(result))
    bars = [float(bar.get("width")) for bar in svg.iter(f"{SVG}rect") if bar.get("x")]
    assert bars == [100, 400, 100, 400]  # each batch has a scale of its own, the fastest is first
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert [text for text in texts if text in ("<a & b>", "ours")] == [
        "ours", "<a & b>", "<a & b>", "ours",
    ]  # fmt: skip


def test_the_table_ends_with_the_most_samples(tiny_bundle, benched):
    code, said = benched(tiny_bundle, "--no-peers")
    assert code == 0, said.err
    assert f"of the bundles {tiny_bundle.name} on " in said.out
    assert " makes the most, " in said.out


def test_the_profile_is_by_module(tiny_bundle, benched):
    code, said = benched(tiny_bundle, "--profile", "--json")
    assert code == 0, said.err
    result = json.loads(said.out)
    modules = {one["module"]: one for one in result["modules"]}
    assert modules["block1.0.attn"]["kind"] == "SAM"
    assert modules["block3.0.mlp"]["kind"] == "Mlp"
    for place in ("before_ms", "after_ms"):
        whole = sum(one[place] for one in result["modules"])
        assert whole == pytest.approx(result[place], rel=1e-3)
        for stage in (1, 2, 3, 4):
            for part in ("attn", "mlp", "norm1"):
                assert modules[f"block{stage}.0.{part}"][place] > 0
            assert modules[f"patch_embed{stage}"][place] > 0
        assert modules["head"][place] > 0
    assert result["batch"] == 2
    assert result["command"].startswith("sam-bench ")


def test_the_profile_is_a_table_for_people():
    times = [("block1.0.attn", "SAM", 3, 1), ("block1.1.attn", "SAM", 5, 1), ("", "", 0, 2)]
    modules = [
        ModuleTime(module=module, kind=kind, before_ms=before, after_ms=after)
        for module, kind, before, after in times
    ]
    result = Profile(
        command="", machine={}, versions={}, provider="X", threads=1, batch=2, rounds=1,
        before_ms=8, after_ms=4, modules=modules,
    )  # fmt: skip
    lines = [line.split() for line in profile_table(result).splitlines()]
    assert ["SAM", "8.00", "2.00", "4.00"] in lines
    assert ["(without", "a", "name)", "0.00", "2.00", "0.00"] in lines
    assert ["all", "8.00", "4.00", "2.00"] in lines
    assert lines[-2:] == [
        ["block1.1.attn", "SAM", "5.00", "1.00", "5.00"],
        ["block1.0.attn", "SAM", "3.00", "1.00", "3.00"],
    ]


def test_a_profile_is_of_one_bundle(tiny_bundle, tmp_path, benched):
    for more in ([str(tiny_bundle)], ["--csv", str(tmp_path / "a.csv")]):
        code, said = benched(tiny_bundle, *more, "--profile")
        assert code == 2
        assert "--profile is of one bundle" in said.err


def test_first_runs_do_not_count_in_a_profile():
    def event(name, us, cat="Node"):
        return {"cat": cat, "name": name, "dur": us}

    runs = [event("a/Conv_kernel_time", us) for us in (9e6, 9e6, 9e6, 1000, 3000, 2000)]
    others = [event("model_run", 5, "Session"), event("a/Conv_fence_before", 7)]
    assert node_medians([*runs, *others]) == {"a/Conv": 2.0}


def test_what_runs_on_a_gpu_is_the_same_model(tiny_bundle, tiny_checkpoint):
    """On the CPU in FP16, which shows that it is right and says nothing of its speed."""
    asked = Asked(weights=tiny_checkpoint)
    subject = bundle_reference(read_bundle(tiny_bundle), asked)
    x = subject.examples()
    (eager,) = torch_in_fp16(tiny_bundle, asked, ["eager"], "cpu")
    entries, left_out = race([eager], {2: Example(x, subject.run(x))}, 1, Progress())
    assert left_out == []
    assert [entry.name for entry in entries] == ["torch eager FP16"]
    assert 1e-6 < entries[0].timings[0].relative_rms < 3e-3


def test_without_a_gpu_there_are_no_such_peers(tiny_bundle, tiny_checkpoint):
    if not torch.cuda.is_available():
        assert gpu_contestants(tiny_bundle, Asked(weights=tiny_checkpoint)) == ([], [])


def test_a_node_is_its_modules():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.proj, self.out_proj = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
            self.blocks = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(1, 1))])

    expected = {
        "proj/MatMul": "proj",
        "out_proj/MatMul": "out_proj",
        "out_proj/MatMul/MatMulAddFusion": "out_proj",
        "InsertedPrecisionFreeCast_blocks.0.0.fc/Conv:0_nchwc": "blocks.0.0",
        "ReorderInput": "",
        "Mul_337": "",
    }
    assert {node: unit_of(Net(), node) for node in expected} == expected


@pytest.mark.parametrize("bad", [["--batch", "0"], ["--rounds", "-5"]])
def test_a_profile_of_nothing_is_refused(tiny_bundle, bad, capsys):
    assert main([str(tiny_bundle), "--profile", *bad]) == 2
    assert "expected" in capsys.readouterr().err
