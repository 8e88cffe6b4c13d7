"""A rebuild that is killed or interrupted: the old bundle or the new one is there, whole."""

import shutil
import signal
import subprocess
import sys

import pytest
from onnx_graphs import RTX
from torn import runs

from sam_deploy.bundle import read_bundle
from sam_deploy.engines import rebuild

pytestmark = pytest.mark.long


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_struck_at_every_step(tiny_bundle, tmp_path, number):
    struck = runs(
        "rebuild", out=tmp_path / "out", source=tiny_bundle, old=True, strikes=[[number, None]]
    )
    for run in struck:
        assert run["found"] in ("old", "new"), run
        assert (run["next"], run["left_next"]) == ("next", ["name"]), run
        if number == signal.SIGINT:
            assert (run["ended"], run["left"]) == (130, ["name"]), run
    assert {run["found"] for run in struck} == {"old", "new"}
    assert len(struck) > 20


@pytest.mark.parametrize(("number", "ended"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_struck_while_tensorrt_builds(tiny_bundle, tmp_path, number, ended):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    before = read_bundle(bundle)
    code = (
        "import os\n"
        "from sam_deploy.cli import _progress\n"
        "from sam_deploy.cli.export import main\n"
        "from sam_deploy.engines import building\n"
        "built = building.progress_monitor\n"
        "def striking(member, phases):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    return built(member, phases)\n"
        "building.progress_monitor = striking\n"
        f"raise SystemExit(main(['--rebuild', {str(bundle)!r}, '--engine', 'tensorrt-rtx']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == ended, done.stderr
    assert read_bundle(bundle) == before
    if number == signal.SIGINT:
        assert done.stderr.splitlines()[-1] == "error: interrupted"
        assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert len(rebuild(bundle, RTX).built) == 1  # as if nothing had happened
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
