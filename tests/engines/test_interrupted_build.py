"""Ctrl-C while TensorRT builds, as a terminal sends it."""

import signal
import subprocess
import sys
import time

import onnx_graphs
import pytest
import tiny_graphs

from sam_deploy.precision import to_fp16

pytestmark = pytest.mark.long

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from contextlib import contextmanager
from pathlib import Path
import onnx_graphs
from sam_deploy.engines import plan_from_onnx
from sam_deploy.progress import Progress
from sam_deploy.tensorrt_family import log_of, member

class Told(Progress):
    @contextmanager
    def stage(self, name, total=None):
        print("stage", flush=True)
        yield lambda steps: print("building", flush=True)

folder = Path(sys.argv[1])
asked = onnx_graphs.report(io_dtype="fp32")
with log_of(member("tensorrt-rtx")).gathered() as said:
    try:
        plan_from_onnx(
            folder / "model.onnx", folder, "tensorrt-rtx", onnx_graphs.RTX, asked, progress=Told()
        )
        print("built")
    except KeyboardInterrupt:
        print("interrupted", said.errors)
"""


@pytest.mark.parametrize("moment", ["stage", "building"])
def test_it_ends_at_once_reaches_the_caller_and_leaves_nothing(tmp_path, moment):
    model = tiny_graphs.graph()
    to_fp16(model)
    (tmp_path / "model.onnx").write_bytes(tiny_graphs.ir.to_proto(model).SerializeToString())
    tests = onnx_graphs.__file__.rpartition("/")[0]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(tests=tests), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line == f"{moment}\n":
            break
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert "interrupted" in out
    assert "built" not in out
    assert "Exception caught" not in err
    if moment == "building":
        assert "BuildCanceled" in out  # it was the builder that ended, not the process
    assert process.returncode == 0
    assert time.monotonic() - start < 10
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
