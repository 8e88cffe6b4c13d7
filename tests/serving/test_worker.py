"""An engine in a process of its own: right answers, honest errors, nothing left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import sam_deploy
from sam_deploy.errors import BundleError, InputError, MachineError
from sam_deploy.serving.worker import Worker, WorkerDied
from sam_deploy.serving.worker.job import Begin
from sam_deploy.serving.worker.memory import Memory

pytestmark = pytest.mark.export


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 64, 64), np.float32)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine function on either loop."""
    if request.param == "asyncio":
        return asyncio.run
    import uvloop

    return uvloop.run


def fds(pid="self"):
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def test_it_gives_what_the_engine_gives(tiny_bundle, run):
    engine = sam_deploy.load(tiny_bundle)

    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        assert worker.ready.backend == "onnxruntime CPUExecutionProvider"
        assert worker.ready.artefact == "model.onnx"
        assert any(text.startswith("cuda: ") for text in worker.ready.passed_over)
        for count in (1, 3, 8, 2):  # its memory grows, and is used again
            x = rows(count, seed=count)
            found = await worker.run({"input": [x]})
            np.testing.assert_allclose(found["logits"], engine(x), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match="expected"):
            await worker.run({"input": [rows(1)[:, :2]]})
        both = await asyncio.gather(*(worker.run({"input": [rows(1, s)]}) for s in (5, 6)))
        for found, seed in zip(both, (5, 6), strict=True):
            np.testing.assert_allclose(found["logits"], engine(rows(1, seed)), rtol=1e-4, atol=1e-5)
        await worker.close()
        assert worker.process.returncode == 0

    run(main())


def test_a_cancelled_caller_does_not_get_into_the_next_ones_way(tiny_bundle, run):
    engine = sam_deploy.load(tiny_bundle)

    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        for number in range(20):
            task = asyncio.create_task(worker.run({"input": [rows(8, seed=1)]}))
            await asyncio.sleep(0.0005 * (number % 4))
            task.cancel()
            x = rows(1, seed=number)
            found = await worker.run({"input": [x]})
            np.testing.assert_allclose(found["logits"], engine(x), rtol=1e-4, atol=1e-5)
        await worker.close()

    run(main())


@pytest.mark.parametrize("when", ["idle", "running"])
def test_a_kill_is_noticed(tiny_bundle, run, when):
    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        told = asyncio.Event()
        worker.on_death = told.set
        if when == "running":
            os.kill(worker.pid, signal.SIGSTOP)
            job = asyncio.create_task(worker.run({"input": [rows(1)]}))
            await asyncio.sleep(0.05)
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="ended by signal 9"):
                await job
        else:
            os.kill(worker.pid, signal.SIGKILL)
        await asyncio.wait_for(told.wait(), 10)
        assert not worker.alive
        with pytest.raises(WorkerDied):
            await worker.run({"input": [rows(1)]})
        await worker.close()
        await worker.close()

    run(main())


def test_what_does_not_load_is_told(tiny_bundle, tmp_path, run):
    async def main():
        with pytest.raises(BundleError, match="is not a bundle"):
            await Worker.start(Begin(str(tmp_path)))
        with pytest.raises(MachineError, match="not the one for CUDA"):
            await Worker.start(Begin(str(tiny_bundle), require="cuda"))

    run(main())


def test_a_process_that_dies_at_its_start(tiny_bundle, run, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    async def main():
        with pytest.raises(WorkerDied, match=r"ended( with 1)?$"):
            await Worker.start(Begin(str(tiny_bundle)))

    run(main())


def test_a_kill_that_the_loop_has_not_seen(tiny_bundle, run):
    """A job that is sent to a process that is gone already."""

    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # the loop stands still
        with pytest.raises(WorkerDied, match="ended by signal 9"):
            await asyncio.wait_for(worker.run({"input": [rows(1)]}), 10)
        await worker.close()

    run(main())


def test_what_cannot_start_leaves_nothing_behind(tiny_bundle, tmp_path, run, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))

    async def main():
        before = fds()
        for _ in range(5):
            with pytest.raises(FileNotFoundError):
                await Worker.start(Begin(str(tiny_bundle)))
        assert fds() == before

    run(main())


def test_a_cancelled_close_leaves_nothing_behind(tiny_bundle, run):
    async def main():
        await asyncio.to_thread(int)  # what the loop opens for threads
        before = fds()
        worker = await Worker.start(Begin(str(tiny_bundle)))
        os.kill(worker.pid, signal.SIGSTOP)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        os.kill(worker.pid, signal.SIGKILL)
        assert fds() == before

    run(main())


def test_ctrl_c_in_a_terminal_does_not_reach_it(tiny_bundle, run):
    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
        await worker.close()

    run(main())


def test_interrupts_are_the_servers(tiny_bundle, run):
    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
        assert (await worker.run({"input": [rows(1)]}))["logits"].shape == (1, 10)
        await worker.close()

    run(main())


def test_it_ends_with_its_server(tiny_bundle):
    """Whatever way that ended."""
    code = (
        "import asyncio, os, signal, sys\n"
        "from sam_deploy.serving.worker import Worker\n"
        "from sam_deploy.serving.worker.job import Begin\n"
        "async def main():\n"
        f"    worker = await Worker.start(Begin({str(tiny_bundle)!r}))\n"
        "    print(worker.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    import subprocess
    import time

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its server")


def test_nothing_is_left_behind(tiny_bundle, run):
    async def main():
        worker = await Worker.start(Begin(str(tiny_bundle)))
        x = rows(1)
        await worker.run({"input": [x]})
        there, size = fds(worker.pid), os.fstat(worker.inputs.fd).st_size
        before = fds()
        for _ in range(1500):
            await worker.run({"input": [x]})
        assert fds() == before
        assert fds(worker.pid) == there
        assert os.fstat(worker.inputs.fd).st_size == size
        await worker.close()

    before = fds()
    run(main())
    assert fds() <= before + 1


def test_memory_of_arrays_of_all_kinds():
    one = Memory.new("test")
    other = Memory(os.dup(one.fd))
    for size in (1, 10, 100_000, 3):
        arrays = {
            "a": np.arange(size, dtype=np.float16),
            "b": np.asfortranarray(np.arange(2 * size, dtype=np.int64).reshape(2, size)),
            "c": np.array(True),
            "d": np.zeros((0, 3), np.float32),
        }
        found = other.views(one.put({name: [array] for name, array in arrays.items()}))
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    parts = [np.arange(6.0).reshape(2, 3), np.arange(3.0).reshape(1, 3), np.ones((4, 3))]
    found = other.views(one.put({"x": parts}))
    np.testing.assert_array_equal(found["x"], np.concatenate(parts))
    del found
    one.close()
    other.close()
