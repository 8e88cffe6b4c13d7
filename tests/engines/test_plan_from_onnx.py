import resource
import subprocess
from contextlib import contextmanager

import numpy as np
import onnx_graphs as graphs
import pytest
import tiny_graphs
from onnx import TensorProto
from onnx_graphs import RTX, Notes, node, report, weight

from sam_deploy.bundle.files import sha256_of
from sam_deploy.engines import plan_from_onnx
from sam_deploy.errors import CheckFailed, GraphSpecError, InputError, MachineError, PrecisionError
from sam_deploy.manifest import IslandReport
from sam_deploy.plans import BatchProfile, PlanOptions
from sam_deploy.precision import audit_precision, to_fp16
from sam_deploy.precision.quantize import FP8, INT8, weighted_layers
from sam_deploy.progress import Progress
from sam_deploy.recipe import Island

pytestmark = pytest.mark.long

FLAVOUR = "tensorrt-rtx"


def build(path, precision, options=RTX, progress=None):
    """Build into a folder beside the ONNX file."""
    folder = path.parent / "bundle"
    folder.mkdir(exist_ok=True)
    return plan_from_onnx(
        path, folder, FLAVOUR, options, precision, progress=progress or Progress()
    )


def nothing_left(path):
    return list((path.parent / "bundle").iterdir()) == []


def tiny(tmp_path, kind="classifier", precision="fp16", islands=(), batch=None):
    model = tiny_graphs.graph(kind, batch)
    if precision == "fp16":
        to_fp16(model, islands)
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_graphs.ir.to_proto(model).SerializeToString())
    listed = [IslandReport(match=i.match, reason=i.reason) for i in islands]
    return path, audit_precision(tiny_graphs.onnx.load(path), precision, listed)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["classifier", "softmax", "features", "sam"])
def test_a_plan_and_its_passport(tmp_path, kind, precision):
    islands = [Island(match="head.1", reason="a test")] if kind == "softmax" else []
    path, asked = tiny(tmp_path, kind, precision, islands)
    options = PlanOptions(engines=[FLAVOUR], profile=BatchProfile(min=1, opt=2, max=4))
    plan = build(path, asked, options)
    written = tmp_path / "bundle" / plan.file
    assert plan.file == f"plans/tensorrt-rtx-{plan.version}-default.plan"
    assert (plan.flavour, plan.compute_capabilities, plan.gpu) == (FLAVOUR, [], None)
    assert plan.profile == options.profile
    assert plan.onnx_sha256 == sha256_of(path)
    assert plan.bytes == written.stat().st_size > 10_000
    assert 0 < plan.build_s < 100
    assert [p for p in (tmp_path / "bundle").rglob("*") if p.is_file()] == [written]


def test_a_fixed_batch_has_no_profile(tmp_path):
    path, asked = tiny(tmp_path, batch=2)
    assert build(path, asked).profile is None


def test_the_targets_are_those_asked_for(tmp_path):
    path = graphs.conv(tmp_path / "model.onnx")
    options = PlanOptions(engines=[FLAVOUR], compute_capabilities=["12.0", "8.9"])
    plan = build(path, report(), options)
    assert plan.compute_capabilities == ["8.9", "12.0"]
    assert plan.file.endswith("-sm89-sm120.plan")


def test_a_gpu_that_it_does_not_know_is_refused_with_those_it_knows(tmp_path):
    path = graphs.conv(tmp_path / "model.onnx")
    options = PlanOptions(engines=[FLAVOUR], compute_capabilities=["8.9", "9.0"])
    said = r"does not build for compute capability 9\.0; it knows 7\.5, 8\.0, .*12\.1\. .*TensorRT"
    with pytest.raises(InputError, match=said):
        build(path, report(), options)
    assert nothing_left(path)


@pytest.mark.parametrize(
    ("elem", "precision", "targets"),
    [
        (TensorProto.INT8, "int8", []),
        (TensorProto.FLOAT8E4M3FN, "fp8", ["8.9", "12.0", "12.1"]),
    ],
)
def test_quantized_graphs_build(tmp_path, elem, precision, targets):
    path = graphs.quantized_conv(tmp_path / "model.onnx", elem)
    plan = build(path, report(precision, layers=["stem.conv/Conv"]))
    assert plan.compute_capabilities == targets  # FP8 only for those that have it


@pytest.mark.parametrize("asked", [["8.0"], ["8.0", "8.9"]])
def test_fp8_is_refused_for_gpus_that_lack_it(tmp_path, asked):
    path = graphs.quantized_conv(tmp_path / "model.onnx", TensorProto.FLOAT8E4M3FN)
    options = PlanOptions(engines=[FLAVOUR], compute_capabilities=asked)
    with pytest.raises(InputError, match=r"^GPUs of compute capability 8\.0 have no FP8.*--int8"):
        build(path, report("fp8", layers=["stem.conv/Conv"]), options)


@pytest.mark.parametrize("op", ["Det", "Frobnicate"])
def test_an_operator_it_does_not_know_is_told_with_its_module(tmp_path, op):
    domain = "own" if op == "Frobnicate" else ""
    nodes = [node(op, ["x"], ["y"], domain=domain)]
    path = graphs.saved(tmp_path / "model.onnx", nodes)
    said = (
        rf"^TensorRT-RTX \S+ does not take the graph:\n  stem\.conv/{op} \({op} of module "
        r"stem\.conv\): it has no such operator, or not in this form \(\w+\)\nChange what"
    )
    with pytest.raises(CheckFailed, match=said) as caught:
        build(path, report())
    assert caught.value.exit_code == 1
    assert nothing_left(path)


def test_a_node_it_refuses_is_told_with_tensorrts_reason(tmp_path):
    path = graphs.quantized_conv(tmp_path / "model.onnx", zero=3)
    said = r"stem\.conv/QuantizeLinear \(QuantizeLinear of .*: .*Non-zero zero point is not supp"
    with pytest.raises(CheckFailed, match=said):
        build(path, report("int8", layers=["stem.conv/Conv"]))


def test_what_is_no_onnx_is_told_as_such(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"model\.onnx is not an ONNX file"):
        build(path, report())


@pytest.mark.parametrize("zero", ["zero", ""])
def test_uint8_which_tensorrt_only_warns_of_is_refused(tmp_path, zero):
    weights = [weight("scale", 0.1), weight("zero", 128, np.uint8)]
    nodes = [
        node("QuantizeLinear", ["x", "scale", zero], ["q"]),
        node("DequantizeLinear", ["q", "scale", zero], ["y"]),
    ]
    path = graphs.saved(tmp_path / "model.onnx", nodes, weights)
    said = r"^stem\.conv/QuantizeLinear .*is in UINT8.*TensorRT reads that as INT8"
    with pytest.raises(GraphSpecError, match=said):
        build(path, report("int8", layers=[]))
    assert nothing_left(path)


def test_a_size_that_is_free_beside_the_batch_is_refused(tmp_path):
    dims = ("n", 4, "h", 8)
    path = graphs.saved(tmp_path / "model.onnx", [node("Relu", ["x"], ["y"])], dims=dims)
    with pytest.raises(CheckFailed, match=r"input x has dims \(-1, 4, -1, 8\).*free batch only"):
        build(path, report())


def test_a_failure_of_the_builder_gives_its_reason(tmp_path, monkeypatch):
    # What no graph of ours provokes: the check of targets that stands before it is switched off.
    monkeypatch.setattr("sam_deploy.engines.targets._FP8_FROM", (7, 5))
    path = graphs.quantized_conv(tmp_path / "model.onnx", TensorProto.FLOAT8E4M3FN)
    options = PlanOptions(engines=[FLAVOUR], compute_capabilities=["8.0"])
    with pytest.raises(CheckFailed, match=r"did not build the network:\n  .*sm80.*fp8_e4m3"):
        build(path, report("fp8", layers=["stem.conv/Conv"]), options)
    assert nothing_left(path)


def test_the_next_build_is_not_told_the_errors_of_the_last(tmp_path):
    bad = graphs.quantized_conv(tmp_path / "bad.onnx", zero=3)
    with pytest.raises(CheckFailed):
        build(bad, report("int8", layers=["stem.conv/Conv"]))
    build(graphs.conv(tmp_path / "model.onnx"), report())
    with pytest.raises(PrecisionError) as caught:
        build(graphs.conv(tmp_path / "model.onnx", np.float32), report(io_dtype="fp32"))
    assert "zero point" not in str(caught.value)


class Shown(Notes):
    """The steps of each stage."""

    def __init__(self):
        super().__init__()
        self.stages = []

    @contextmanager
    def stage(self, name, total=None):
        steps = []
        self.stages.append((name, total, steps))
        yield steps.append


def test_progress_is_told_to_its_end(tmp_path):
    path, asked = tiny(tmp_path)
    shown = Shown()
    build(path, asked, progress=shown)
    [(name, total, steps)] = shown.stages
    assert (name, total, sum(steps)) == (FLAVOUR, 100, 100)
    assert min(steps) >= 0
    assert shown.notes == []


@contextmanager
def files_of_at_most(size_bytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_may_not_grow_so_large_leaves_nothing(tmp_path):
    path = graphs.conv(tmp_path / "model.onnx")
    with files_of_at_most(4096), pytest.raises(MachineError, match=r"cannot write to .*too large"):
        build(path, report())
    assert nothing_left(path)


def test_a_full_disk_leaves_nothing(tmp_path):
    path = graphs.conv(tmp_path / "model.onnx")
    disk = tmp_path / "bundle"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(MachineError, match=r"cannot write to .*No space left.* Free some"):
            build(path, report())
        assert nothing_left(path)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("grid", [INT8, FP8], ids=["int8", "fp8"])
@pytest.mark.parametrize("kind", ["classifier", "sam"])
def test_a_real_graph_builds_quantized(tmp_path, kind, grid):
    model = tiny_graphs.graph(kind)
    layers = [layer for layer in weighted_layers(model.graph) if layer.kind in ("linear", "conv")]
    graphs.quantize(model.graph, layers, grid)
    to_fp16(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_graphs.ir.to_proto(model).SerializeToString())
    asked = report(grid.name, "fp32", layers=[layer.name for layer in layers])
    assert layers
    assert build(path, asked).profile == RTX.profile
