"""What a build leaves of the process: all as it was, in whatever thread it ran."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import onnx_graphs as graphs
import pytest
from onnx_graphs import RTX, report

from sam_deploy.engines import plan_from_onnx
from sam_deploy.errors import CheckFailed
from sam_deploy.progress import Progress


def build(folder, make=graphs.conv):
    folder.mkdir(exist_ok=True)
    path = make(folder / "model.onnx")
    return plan_from_onnx(path, folder, "tensorrt-rtx", RTX, report(), progress=Progress())


def unknown(path):
    return graphs.saved(path, [graphs.node("Frobnicate", ["x"], ["y"], domain="own")])


def state():
    numbers = (signal.SIGINT, signal.SIGTERM)
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("build")}
    return [signal.getsignal(n) for n in numbers], dict(os.environ), os.getcwd(), threads  # noqa: PTH109


def test_nothing_is_changed(tmp_path, capfd):
    before = state()
    build(tmp_path / "one")
    with pytest.raises(CheckFailed):
        build(tmp_path / "two", unknown)
    build(tmp_path / "two")
    assert state() == before
    assert capfd.readouterr() == ("", "")  # TensorRT prints nothing past us either


def test_several_threads_build_at_once_and_each_is_told_its_own(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        makes = [graphs.conv, unknown, graphs.conv, unknown]
        works = [
            pool.submit(build, tmp_path / str(number), make) for number, make in enumerate(makes)
        ]
        good, bad, also_good, also_bad = (work.exception() for work in works)
    assert (good, also_good) == (None, None)
    assert "Frobnicate" in str(bad)
    assert str(bad) == str(also_bad)
