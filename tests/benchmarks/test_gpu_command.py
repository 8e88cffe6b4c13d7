"""What of `make gpu` can run without a GPU: its refusal, and that one failure stops nothing."""

import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sam_deploy.runtime import find_machine

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from _gpu_engines import alone  # noqa: E402
from _race import race  # noqa: E402

pytestmark = pytest.mark.long

without_gpu = pytest.mark.skipif(find_machine([]).gpu is not None, reason="this machine has a GPU")


@without_gpu
def test_without_a_gpu_it_says_so_and_exits_3():
    command = [sys.executable, "benchmarks/gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "error: PyTorch sees no NVIDIA GPU here (torch.cuda.is_available() is false)\n"
    )


def test_without_pytorch_it_says_so_and_exits_3():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['gpu.py']\n"
        "sys.path.insert(0, 'benchmarks')\nimport gpu; sys.exit(gpu.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("error: PyTorch, which everything is held against, is not here")


def doubles():
    return lambda x: 2 * x


def triples():
    return lambda x: 3 * x


def does_not_start():
    raise ImportError("no such package")


def crashes():
    os._exit(7)


X = np.arange(6.0)
run = partial(race, x=X, reference=2 * X, rounds=5, tolerance=1e-6)


def test_a_contestant_that_fails_is_recorded_and_stops_no_other():
    failed = {}
    contestants = {
        "one": doubles,
        "wrong": triples,
        "missing": does_not_start,
        "crash": crashes,
        "two": doubles,
    }
    times = run(contestants, failed=failed)
    assert set(times) == {"one", "two"}
    assert all(0 <= t.median_ms <= t.p95_ms for t in times.values())
    assert failed.pop("wrong").startswith("at batch 6 output is off by a relative RMS of ")
    assert failed == {
        "missing": "ImportError: no such package",
        "crash": "its process ended with 7",
    }


def test_where_all_must_run_a_failure_ends_the_race():
    with pytest.raises(SystemExit, match="missing: ImportError: no such package"):
        run({"one": doubles, "missing": does_not_start})


def raises(error):
    raise error


def test_a_crash_alone_is_an_error_like_others():
    assert alone(divmod, 7, 2) == (3, 1)
    with pytest.raises(RuntimeError, match="its process crashed"):
        alone(crashes)
    with pytest.raises(RuntimeError, match="ValueError: no"):
        alone(raises, ValueError("no"))


@pytest.fixture
def generate(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_tell_what_ran_from_what_was_only_built(generate, monkeypatch):
    parity = {"outputs": [{"relative_rms": 5e-4}]}
    receipt = {
        "bundle": "smt_t-int8-224",
        "precision": "int8",
        "machine": {"gpu": "NVIDIA H100", "cpu": "x", "cores": "16"},
        "plans": [
            {"flavour": "tensorrt", "version": "11.4.0.106"},
            {"flavour": "tensorrt-rtx", "version": "1.7.1.116"},
        ],
        "engines": {
            "ONNX Runtime CUDA": {"passed": False, "parity": parity},
            "TensorRT": {"passed": True, "parity": parity},
            "TensorRT-RTX": {"reason": "unsupported cc"},
        },
        "batch 1": {
            "torch eager FP16": {"median_ms": 8.0},
            "TensorRT": {"median_ms": 2.0},
        },
    }
    monkeypatch.setattr(generate, "all_receipts", lambda: {"smt_t-int8-224-h100": receipt})
    rows = generate.engines().splitlines()[2:]
    assert rows == [
        "| ONNX Runtime CPU | any | nothing yet | |",
        "| ONNX Runtime CUDA | any | nothing yet | |",
        "| TensorRT | INT8 | NVIDIA H100 | 11.4.0.106 |",
        "| TensorRT-RTX | INT8 | nothing yet | 1.7.1.116 |",
    ]
    assert generate.receipts().splitlines()[2:] == [
        "| [smt_t-int8-224-h100](receipts/smt_t-int8-224-h100.json) | TensorRT on NVIDIA H100 "
        "| 5.0e-04 |  | 4.00 |"
    ]


def test_its_recipes_are_for_gpus():
    code = "import sys; sys.path.insert(0, 'benchmarks'); import gpu; print(*gpu.default_recipes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    names = sorted(Path(path).stem for path in done.stdout.split())
    precisions = ["fp16", "fp32", "fp8", "int8"]
    assert names == ["sam-fp16-32", *(f"smt_t-{precision}-224" for precision in precisions)]
