import subprocess
import sys
from importlib.util import find_spec

import pytest

from sam_deploy.engines import chosen
from sam_deploy.errors import InputError, MachineError
from sam_deploy.runtime import find_machine

WITHOUT_TENSORRT = pytest.mark.skipif(
    find_spec("tensorrt") is not None, reason="TensorRT is installed"
)


def python(code, *paths):
    path = ":".join(map(str, paths))
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}.split(':')\n{code}"]
    return subprocess.run(command, capture_output=True, text=True)


def package(folder, name, version, init):
    """An installed package, as pip leaves it."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(init)
    info = folder / f"{name}_cu13-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}-cu13\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    (info / "top_level.txt").write_text(f"{name}\n")
    return folder


def test_importing_engines_brings_neither_torch_nor_onnxruntime():
    code = "import sam_deploy.engines\nprint({*sys.modules} & {'torch', 'onnxruntime', 'onnx_ir'})"
    assert python(code).stdout == "set()\n"


@WITHOUT_TENSORRT
def test_auto_takes_what_can_build_and_says_what_it_skipped():
    flavours, skipped = chosen(["auto"])
    assert flavours == ["tensorrt-rtx"]
    assert skipped == {
        "tensorrt": "TensorRT is not installed. Run: pip install 'sam-deploy[tensorrt]'"
    }


def test_targets_are_refused_before_anything_is_exported():
    assert chosen(["tensorrt-rtx"], precision="fp8", compute_capabilities=["8.9"])
    for precision, capability in (("fp8", "8.0"), ("fp16", "9.0")):
        with pytest.raises(InputError, match=f"capability {capability}"):
            chosen(["tensorrt-rtx"], precision=precision, compute_capabilities=[capability])


def test_none_is_none():
    assert chosen(["none"]) == ([], {})


@WITHOUT_TENSORRT
def test_asking_for_what_is_not_there_gives_the_command():
    with pytest.raises(MachineError, match=r"pip install 'sam-deploy\[tensorrt\]'") as caught:
        chosen(["tensorrt-rtx", "tensorrt"])
    assert caught.value.exit_code == 3


ASK = """
from sam_deploy.engines import chosen
from sam_deploy.errors import MachineError
print(chosen(["auto"])[1]["tensorrt"])
try:
    chosen(["tensorrt"])
except MachineError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("version", "init", "said"),
    [
        (
            "10.16.1",
            "raise OSError('libnvinfer.so.10: cannot open shared object file')",
            "TensorRT is installed and does not import: libnvinfer.so.10: cannot open shared "
            "object file. Run: pip install 'sam-deploy[tensorrt]'",
        ),
        (
            "8.6.1",
            "__version__ = '8.6.1'",
            "TensorRT 8.6.1 is too old: 10.13 or later is needed. "
            "Run: pip install 'sam-deploy[tensorrt]'",
        ),
        pytest.param(
            "11.4.0",
            "__version__ = '11.4.0'",
            "TensorRT 11.4.0 builds on the GPU that it builds for, and "
            f"{find_machine([]).no_gpu}. Build there with sam-export --rebuild, or take --engine "
            "tensorrt-rtx, which needs none.",
            marks=pytest.mark.skipif(find_machine([]).gpu is not None, reason="there is a GPU"),
        ),
    ],
)
@WITHOUT_TENSORRT
def test_what_is_installed_and_cannot_build_says_why(tmp_path, version, init, said):
    done = python(ASK, package(tmp_path, "tensorrt", version, init))
    assert done.stdout.splitlines() == [said, said], done.stderr
