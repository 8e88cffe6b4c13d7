import msgspec
import pytest

from sam_deploy.bundle import read_bundle
from sam_deploy.errors import MachineError
from sam_deploy.plans import BatchProfile, PlanInfo
from sam_deploy.runtime import GpuInfo, Machine, misfit
from sam_deploy.runtime.passport import fitting_plan

ADA = GpuInfo("an RTX 4090", "8.9")
HOPPER = GpuInfo("an H100", "9.0")


def plan(flavour="tensorrt", version="10.16.1.11", capabilities=("8.9",), **changes):
    return PlanInfo(
        **{
            "file": f"plans/{flavour}.plan",
            "flavour": flavour,
            "version": version,
            "compute_capabilities": list(capabilities),
            "gpu": None,
            "profile": BatchProfile(),
            "options": {},
            "onnx_sha256": "0" * 64,
            "bytes": 9,
            "build_s": 1.0,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("wanted", "version", "gpu", "said"),
    [
        (plan(), "10.16.1.11", ADA, None),
        (plan(capabilities=["8.0", "9.0"]), "10.16.1.11", HOPPER, None),
        (
            plan(),
            "11.4.0.106",
            HOPPER,
            "built for TensorRT 10.16.1.11 on SM89, this machine has TensorRT 11.4.0.106 on SM90",
        ),
        (
            plan(),
            "10.16.1.12",
            ADA,
            "built for TensorRT 10.16.1.11 on SM89, this machine has TensorRT 10.16.1.12 on SM89",
        ),
        (
            plan(capabilities=["8.0", "8.6"]),
            "10.16.1.11",
            ADA,
            "built for TensorRT 10.16.1.11 on SM80, SM86, "
            "this machine has TensorRT 10.16.1.11 on SM89",
        ),
        (
            plan(capabilities=[]),
            "10.16.1.11",
            ADA,
            "built for TensorRT 10.16.1.11 on no GPU, this machine has TensorRT 10.16.1.11 on SM89",
        ),
        (plan("tensorrt-rtx", "1.7.1.116", []), "1.7.1.116", ADA, None),
        (
            plan("tensorrt-rtx", "1.7.1.116", []),
            "1.8.0.1",
            ADA,
            "built for TensorRT-RTX 1.7.1.116 on SM80, SM86, SM89, SM120 and later, "
            "this machine has TensorRT-RTX 1.8.0.1 on SM89",
        ),
        (
            plan("tensorrt-rtx", "1.7.1.116", []),
            "1.7.1.116",
            HOPPER,
            "built for TensorRT-RTX 1.7.1.116 on SM80, SM86, SM89, SM120 and later, "
            "this machine has TensorRT-RTX 1.7.1.116 on SM90",
        ),
    ],
)
def test_a_plan_runs_on_its_version_and_gpus_alone(wanted, version, gpu, said):
    assert misfit(wanted, Machine({wanted.flavour: version}, gpu)) == said


@pytest.mark.parametrize(
    ("capability", "fits"),
    [("7.5", False), ("8.0", True), ("8.6", True), ("8.7", False), ("9.0", False), ("10.0", False),
     ("12.0", True), ("12.1", True), ("13.0", True)],
)  # fmt: skip
def test_the_default_of_tensorrt_rtx(capability, fits):
    machine = Machine({"tensorrt-rtx": "1.7"}, GpuInfo("a GPU", capability))
    assert (misfit(plan("tensorrt-rtx", "1.7", []), machine) is None) == fits


def test_what_the_machine_lacks_is_said_first():
    assert misfit(plan(), Machine({}, None)) == "TensorRT is not installed"
    here = Machine({"tensorrt": "10.16.1.11"}, None)
    assert misfit(plan(), here) == "this machine has no NVIDIA GPU or no driver"
    both = Machine({"tensorrt-rtx": "1.7.1.116"}, ADA, {"tensorrt": "it does not load"})
    assert misfit(plan(), both) == "it does not load"


@pytest.fixture(scope="module")
def manifest_with(tiny_bundle):
    """The manifest of the tiny bundle with these plans, built from its ONNX unless they say."""
    manifest = read_bundle(tiny_bundle)
    onnx = manifest.files["model.onnx"]

    def make(*plans):
        own = [
            msgspec.structs.replace(p, onnx_sha256=onnx.sha256) if p.onnx_sha256 == "0" * 64 else p
            for p in plans
        ]
        info = msgspec.structs.replace(onnx, bytes=9)
        files = {**manifest.files, **{p.file: info for p in own}}
        return msgspec.structs.replace(manifest, plans=own, files=files)

    return make


def test_the_first_that_fits_is_taken(manifest_with, tmp_path):
    plans = [
        plan(version="9.0.0.1", file="plans/old.plan"),
        plan(capabilities=["9.0"], file="plans/hopper.plan"),
        plan(file="plans/ada.plan"),
    ]
    machine = Machine({"tensorrt": "10.16.1.11"}, ADA)
    assert fitting_plan(manifest_with(*plans), "tensorrt", machine, tmp_path).file == (
        "plans/ada.plan"
    )


@pytest.mark.parametrize(
    ("plans", "machine", "said"),
    [
        ([plan("tensorrt-rtx")], Machine({"tensorrt": "1"}, ADA), "has no plan for TensorRT: run"),
        ([plan()], Machine({"tensorrt": "1"}, None, {}, "no driver"), "^no driver$"),
        ([plan()], Machine({}, ADA, {"tensorrt": "Run: pip"}), "^Run: pip$"),
        (
            [plan(file="a"), plan(file="b", version="11.0")],
            Machine({"tensorrt": "10.16.1.11"}, HOPPER),
            "^a was built for .* on SM90; b was built for TensorRT 11.0 on SM89, this machine has "
            "TensorRT 10.16.1.11 on SM90: run `sam-export --rebuild ",
        ),
        (
            [plan(onnx_sha256="1" * 64)],
            Machine({"tensorrt": "10.16.1.11"}, ADA),
            "was built from another model.onnx than the bundle's: run `sam-export --rebuild",
        ),
        (
            [plan(bytes=8)],
            Machine({"tensorrt": "10.16.1.11"}, ADA),
            "was built with 8 bytes, the bundle lists 9: run `sam-export --rebuild",
        ),
    ],
)
def test_none_that_fits(manifest_with, tmp_path, plans, machine, said):
    with pytest.raises(MachineError, match=said):
        fitting_plan(manifest_with(*plans), "tensorrt", machine, tmp_path)


def test_a_gpu_that_tensorrt_rtx_builds_for_when_asked(manifest_with, tmp_path):
    turing = Machine({"tensorrt-rtx": "1.7"}, GpuInfo("a Turing GPU", "7.5"))
    bundle = manifest_with(plan("tensorrt-rtx", "1.7", []))
    said = rf"on SM75: run `sam-export --rebuild {tmp_path} --compute-capability 7\.5`$"
    with pytest.raises(MachineError, match=said):
        fitting_plan(bundle, "tensorrt-rtx", turing, tmp_path)
