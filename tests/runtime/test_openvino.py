"""OpenVINO beside ONNX Runtime: taken where it is faster and agrees, in FP32 unless told otherwise.

In processes of their own: where it is installed `load` considers it, and the other tests are of
machines that do not have it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(sys.prefix) / "openvino"  # the Makefile puts it there
pytestmark = pytest.mark.long
BEGIN = """
import json, sys, threading
from pathlib import Path
import numpy as np
import sam_deploy
from sam_deploy.runtime import faster
from sam_deploy.runtime.onnx_backends import allows_bf16, start_onnx
from sam_deploy.runtime.openvino import OPENVINO, OpenVINORunner
bundle = Path(sys.argv[1])
x = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
far = lambda a, b: float(np.sqrt(np.mean((a - b) ** 2)) / b.std())
said = {}
"""
END = "print(json.dumps(said))"


@pytest.fixture
def said(tiny_bundle, tmp_path):
    """Runs lines of Python where OpenVINO is; what they put into `said`."""

    def run(lines, bundle=tiny_bundle):
        code = "\n".join([BEGIN, lines, END])
        env = {**os.environ, "PYTHONPATH": str(PACKAGE), "SAM_DEPLOY_CACHE": str(tmp_path / "kept")}
        done = subprocess.run(
            [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_it_computes_what_onnxruntime_does_in_fp32(said):
    found = said("""
cpu, openvino = sam_deploy.load(bundle, "cpu"), sam_deploy.load(bundle, "openvino")
said["far"] = far(openvino(x), cpu(x))
said["one by one"] = far(np.concatenate([openvino(x[i : i + 1]) for i in range(3)]), cpu(x))
said["backend"], said["name"] = openvino.backend, openvino.chosen.name
""")
    assert found["far"] < 3e-3
    assert found["one by one"] < 3e-3
    assert (found["backend"], found["name"]) == ("openvino CPU in FP32", "openvino")


@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_the_faster_is_taken_and_the_race_is_run_once(said, ratio, tmp_path):
    found = said(f"""
races = []
faster.speed_ratio = lambda one, other, rounds: races.append((one(), other())) or {ratio}
for place in ("first", "again"):
    chosen = sam_deploy.load(bundle).chosen
    said[place] = [chosen.name, chosen.passed_over.get("openvino")]
said["races"] = len(races)
one, other = (outputs["logits"] for outputs in races[0])
said["far"], said["rows"] = far(one, other), len(one)
sam_deploy.load(bundle, "openvino")
said["kept"] = [path.name[:9] for path in (Path(faster.cache_folder())).iterdir()]
""")
    slower = "it is 0.50 times as fast as ONNX Runtime on this machine, one sample at a time"
    expected = ["openvino", None] if ratio > 1 else ["cpu", slower]
    assert found["first"] == found["again"] == expected
    assert (found["races"], found["rows"], found["kept"]) == (1, 1, ["openvino-"])
    assert found["far"] < 3e-3  # they were raced on the same inputs


def test_a_real_race_ends_with_one_of_both(said):
    found = said("""
chosen = sam_deploy.load(bundle).chosen
said["name"], said["passed over"] = chosen.name, chosen.passed_over
""")
    assert found["name"] in ("openvino", "cpu")
    assert ("openvino" in found["passed over"]) == (found["name"] == "cpu")


def test_what_does_not_agree_is_not_taken_however_fast(said):
    found = said("""
run = OpenVINORunner.run
OpenVINORunner.run = lambda self, inputs: {n: a * 1.1 for n, a in run(self, inputs).items()}
faster.speed_ratio = lambda *both: 9.0
chosen = sam_deploy.load(bundle).chosen
said["name"], said["why"] = chosen.name, chosen.passed_over["openvino"]
""")
    assert found["name"] == "cpu"
    assert "does not give what the bundle keeps as its example" in found["why"]


def test_bf16_is_for_those_that_allow_it_and_is_said(said):
    found = said("""
import openvino
from sam_deploy.bundle import read_bundle
able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
runner = start_onnx(bundle / "model.onnx", OPENVINO, bf16=True)
said["able"], said["backend"] = "BF16" in able, runner.backend
said["far"] = far(runner.run({"input": x})["logits"], sam_deploy.load(bundle, "cpu")(x))
said["allowed"] = allows_bf16(read_bundle(bundle).recipe)
""")
    assert found["backend"] == f"openvino CPU in {'BF16' if found['able'] else 'FP32'}"
    assert found["far"] < (5e-2 if found["able"] else 3e-3)
    assert found["allowed"] is False  # FP16's tolerances are below what BF16 errs by


def test_many_threads_share_an_engine(said):
    found = said("""
engine = sam_deploy.load(bundle, "openvino", contexts=4)
expected = [engine(x * i) for i in range(8)]
wrong = []
def work(i):
    for _ in range(5):
        if not np.array_equal(engine(x * i), expected[i]): wrong.append(i)
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
said["wrong"] = wrong
""")
    assert found["wrong"] == []


def test_a_folder_of_that_name_is_no_openvino(tiny_bundle, tmp_path):
    (tmp_path / "openvino").mkdir()
    code = (
        "import sys, sam_deploy; print(sam_deploy.load(sys.argv[1]).chosen.passed_over['openvino'])"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle)], capture_output=True, text=True, env=env
    )
    assert "OpenVINO is not installed" in done.stdout, done.stderr


def test_outputs_stay_what_they_were(said):
    found = said("""
engine = sam_deploy.load(bundle, "openvino")
first = engine(x)
copy = first.copy()
engine(x * 2)
said["same"] = bool(np.array_equal(first, copy))
""")
    assert found["same"]


def test_a_file_that_is_none_is_refused_in_a_sentence(said, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    found = said(f"""
from sam_deploy.errors import MachineError
try: OpenVINORunner(Path({str(tmp_path / "bad.onnx")!r}))
except MachineError as error: said["error"] = str(error)
""")
    assert found["error"].startswith(f"OpenVINO refuses {tmp_path / 'bad.onnx'}: ")
    assert "\n" not in found["error"]


def test_what_it_refuses_onnxruntime_runs(said):
    found = said("""
import openvino
def refuses(*_): raise RuntimeError("Exception from src/core.cpp:1:\\nno such operator")
openvino.Core.compile_model = refuses
chosen = sam_deploy.load(bundle).chosen
said["name"], said["why"] = chosen.name, chosen.passed_over["openvino"]
""")
    assert found["name"] == "cpu"
    assert found["why"].startswith("OpenVINO refuses ")
    assert found["why"].endswith(": no such operator")


def test_parity_is_judged_on_it_too(tiny_bundle, tiny_checkpoint):
    command = [
        sys.executable, "-c", "from sam_deploy.cli.parity import main; raise SystemExit(main())",
        str(tiny_bundle), "--weights", str(tiny_checkpoint), "--require", "openvino", "--json",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    backends = [one["backend"] for one in json.loads(done.stdout)["artefacts"]]
    assert {"onnxruntime CPUExecutionProvider", "openvino CPU in FP32"} <= set(backends)
