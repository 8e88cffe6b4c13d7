"""Bundles with a real TensorRT-RTX plan, loaded where no GPU is: up to the CUDA call."""

import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from conftest import rewrite_manifest
from rtx import Parsed

import sam_deploy
from sam_deploy.bundle import file_infos, read_bundle
from sam_deploy.errors import BundleError, InputError, MachineError
from sam_deploy.plans import BatchProfile, PlanInfo, plan_file
from sam_deploy.runtime import BACKENDS, GpuInfo, Machine, TensorRTRunner, find_machine, load
from sam_deploy.runtime.plan_file import read_plan

rtx = pytest.importorskip("tensorrt_rtx")
VERSION = rtx.__version__
ADA = GpuInfo("an RTX 4090", "8.9")
without_gpu = pytest.mark.skipif(find_machine([]).gpu is not None, reason="this machine has a GPU")


def with_plan(bundle, data, **changes):
    """Put the plan `data` into `bundle`, with a passport for TensorRT-RTX unless `changes` say."""
    name = plan_file("tensorrt-rtx", VERSION, [])
    (bundle / "plans").mkdir(exist_ok=True)
    (bundle / name).write_bytes(data)
    passport = {
        "file": name,
        "flavour": "tensorrt-rtx",
        "version": VERSION,
        "compute_capabilities": [],
        "gpu": None,
        "profile": BatchProfile(min=1, opt=2, max=4),
        "options": {},
        "onnx_sha256": read_bundle_hash(bundle),
        "bytes": len(data),
        "build_s": 1.0,
        **changes,
    }
    rewrite_manifest(
        bundle,
        plans=msgspec.to_builtins([PlanInfo(**passport)]),
        files=msgspec.to_builtins(file_infos(bundle)),
    )
    return bundle


def read_bundle_hash(bundle):
    return file_infos(bundle)["model.onnx"].sha256


@pytest.fixture(scope="module")
def plan_data(tiny_bundle):
    built = Parsed((tiny_bundle / "model.onnx").read_bytes()).build()
    assert built is not None
    return bytes(built)


@pytest.fixture(scope="module")
def planned(tiny_bundle, plan_data, tmp_path_factory):
    """The tiny bundle with a plan. Read only."""
    copied = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("planned") / "bundle")
    return with_plan(copied, plan_data)


@pytest.fixture
def on_ada(monkeypatch):
    """As if this machine had a GPU; nothing can run on it."""
    machine = Machine({"tensorrt-rtx": VERSION, "tensorrt": "10.16.1.11"}, ADA)
    monkeypatch.setattr("sam_deploy.runtime.backends.find_machine", lambda flavours: machine)


@pytest.fixture
def no_runtime(monkeypatch):
    """Whatever would deserialize a plan fails the test."""

    def never(*_):
        raise AssertionError("TensorRT saw the plan")

    monkeypatch.setattr(rtx, "Runtime", never)


@without_gpu
def test_without_a_gpu_it_is_one_sentence(planned, no_runtime):
    with pytest.raises(MachineError, match=r"^this machine has no NVIDIA GPU or no driver: .+$"):
        load(planned, "tensorrt-rtx")


@without_gpu
def test_the_onnx_takes_over_only_where_it_is_allowed_to(planned):
    x = np.zeros((1, 3, 64, 64), np.float32)
    engine = load(planned)
    assert engine.backend == "onnxruntime CPUExecutionProvider"
    passed_over = engine.chosen.passed_over
    assert list(passed_over) == ["tensorrt", "tensorrt-rtx", "cuda", "openvino"]
    assert passed_over["tensorrt-rtx"].startswith("this machine has no NVIDIA GPU")
    assert passed_over["tensorrt"].startswith(f"{planned} has no plan for TensorRT: run")
    np.testing.assert_array_equal(engine(x), load(planned, "cpu")(x))
    assert load(planned, "cpu").chosen.passed_over == {}


@without_gpu
def test_the_exit_code_is_3_and_nothing_crashes(planned):
    code = (
        "import sys, sam_deploy\nfrom sam_deploy.errors import SamDeployError\n"
        f"try: sam_deploy.load({str(planned)!r}, 'tensorrt-rtx')\n"
        "except SamDeployError as error: print(error, file=sys.stderr); sys.exit(error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)


@without_gpu
def test_the_runner_itself_ends_in_words_before_the_plan_is_read(planned, plan_data, no_runtime):
    manifest = read_bundle(planned)
    with pytest.raises(MachineError, match=r"the GPU failed at its start: .*driver"):
        TensorRTRunner(plan_data, manifest.plans[0], manifest.inputs, manifest.outputs)


@without_gpu
def test_a_fitting_passport_gets_as_far_as_cuda(planned, on_ada, no_runtime):
    with pytest.raises(MachineError, match="the GPU failed at its start"):
        load(planned, "tensorrt-rtx")


def test_tensorrt_that_is_not_installed_is_named_with_the_remedy(planned, monkeypatch):
    said = "TensorRT-RTX is not installed. Run: pip install 'sam-deploy[tensorrt-rtx]'"
    lacking = {"tensorrt-rtx": said}
    machine = Machine({}, ADA, lacking)
    monkeypatch.setattr("sam_deploy.runtime.backends.find_machine", lambda flavours: machine)
    with pytest.raises(MachineError, match=r"Run: pip install 'sam-deploy\[tensorrt-rtx\]'"):
        load(planned, "tensorrt-rtx")


def test_a_module_that_is_missing_is_lacking(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    machine = find_machine(["tensorrt-rtx"])
    assert machine.versions == {}
    assert "TensorRT-RTX is not installed. Run: pip install" in machine.lacking["tensorrt-rtx"]


def test_without_cuda_core(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    machine = find_machine([])
    assert machine.gpu is None
    assert "cuda-core is not installed. Run: pip install" in machine.no_gpu


def test_a_bundle_without_plans_says_how_to_get_one(tiny_bundle, on_ada):
    said = f"has no plan for TensorRT-RTX: run `sam-export --rebuild {tiny_bundle}`"
    with pytest.raises(MachineError, match=said):
        load(tiny_bundle, "tensorrt-rtx")


def test_another_version_is_refused_before_a_byte_is_read(
    tiny_bundle, plan_data, tmp_path, on_ada, no_runtime, monkeypatch
):
    copied = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with_plan(copied, plan_data, version="1.3.0.35")
    monkeypatch.setattr("sam_deploy.runtime.backends.read_plan", lambda *_: pytest.fail("was read"))
    said = (
        f"was built for TensorRT-RTX 1.3.0.35 on SM80, .* and later, this machine has .*{VERSION}"
    )
    with pytest.raises(MachineError, match=said):
        load(copied, "tensorrt-rtx")


def test_a_plan_of_another_flavour_in_its_place(
    tiny_bundle, plan_data, tmp_path, on_ada, no_runtime
):
    copied = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with_plan(
        copied,
        plan_data,
        flavour="tensorrt",
        version="10.16.1.11",
        compute_capabilities=["8.9"],
    )
    said = "is a plan of TensorRT-RTX, its passport says TensorRT: it is not loaded"
    with pytest.raises(BundleError, match=said):
        load(copied, "tensorrt")
    with pytest.raises(BundleError, match=said):  # and nothing takes over: the bundle is wrong
        load(copied)


def test_a_plan_renamed_to_anothers_place(planned, tmp_path, no_runtime):
    copied = shutil.copytree(planned, tmp_path / "bundle")
    (plan,) = (copied / "plans").iterdir()
    plan.rename(plan.with_name("tensorrt-10.16.1.11-sm89.plan"))
    for backend in BACKENDS:
        with pytest.raises(BundleError, match=r"plan: missing\n.*sm89\.plan: not in the manifest"):
            load(copied, backend)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_plan_is_never_loaded(planned, plan_data, tmp_path, on_ada, no_runtime, damage):
    copied = shutil.copytree(planned, tmp_path / "bundle")
    manifest = read_bundle(copied)
    file = copied / manifest.plans[0].file
    if damage == "gone":
        file.unlink()
    else:
        changed = plan_data[:-1] if damage == "cut" else plan_data[:-1] + b"\x99"
        file.write_bytes(changed)
    for backend in BACKENDS:
        with pytest.raises(BundleError, match=r"damaged|missing|is gone|not there"):
            load(copied, backend)
    with pytest.raises(BundleError, match=r"a plan is code: it is not loaded|cannot read"):
        read_plan(copied, manifest, manifest.plans[0])


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("tensort", "unknown backend 'tensort'; known are .* Did you mean 'tensorrt'"),
        ("onnxruntime", "unknown backend 'onnxruntime'; known are tensorrt, .*, cpu"),
        ("", "unknown backend ''"),
    ],
)
def test_what_is_no_backend(tiny_bundle, backend, said):
    with pytest.raises(InputError, match=said):
        load(tiny_bundle, backend)


def test_an_engine_is_closed_by_with(tiny_bundle):
    with sam_deploy.load(tiny_bundle) as engine:
        assert engine(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 10)
    with pytest.raises(InputError, match=r"this engine runs on onnxruntime CPU.*Load it with"):
        engine.run_on_device(np.zeros((1, 3, 64, 64), np.float32))
