"""How requests are put together, and what happens to them when something dies."""

import asyncio
import time

import numpy as np
import pytest

from sam_deploy.errors import InputError, MachineError
from sam_deploy.serving.batching import Batcher, BatchOptions
from sam_deploy.serving.failures import BadRequest, DeadlineExceeded, ServingError, Unavailable
from sam_deploy.serving.worker import WorkerDied

POISON, BAD = 666.0, -1.0


class FakeWorker:
    """y = 2 x; dies of one value, refuses another. `gate` holds it up."""

    def __init__(self, log, gate):
        self.log, self.gate = log, gate
        self.alive, self.on_death, self.closed = True, lambda: None, False

    async def run(self, inputs):
        x = np.concatenate(inputs["x"])
        self.log.append(len(x))
        await self.gate.wait()
        if (x == POISON).any():
            self.alive = False
            self.on_death()
        if not self.alive:
            raise WorkerDied("it ended by signal 9")
        if (x == BAD).any():
            raise InputError("a value that is bad")
        if (x == -2).any():
            raise MachineError("too little memory")
        await asyncio.sleep(0.001)
        return {"y": 2 * x}

    async def close(self):
        self.closed = True

    def die(self):
        self.alive = False
        self.on_death()


class Watcher:
    def __init__(self):
        self.batches, self.restarts = [], []

    def ran(self, rows, compute_ns):
        self.batches.append(rows)
        assert compute_ns > 0

    def restarted(self, what):
        self.restarts.append(what)


class Made:
    def __init__(self, **options):
        self.log, self.workers, self.watcher = [], [], Watcher()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = 0
        self.batcher = Batcher(
            self.start, BatchOptions(**{"max_batch": 4, **options}), self.watcher
        )

    async def start(self):
        if self.failing:
            self.failing -= 1
            raise MachineError("no memory for another")
        self.workers.append(FakeWorker(self.log, self.gate))
        return self.workers[-1]

    async def __aenter__(self):
        await self.batcher.open()
        return self

    async def __aexit__(self, *_):
        self.gate.set()
        await self.batcher.close()
        assert all(worker.closed for worker in self.workers)

    def ask(self, *values, columns=1, dtype=np.float32, **options):
        x = np.repeat(np.array(values, dtype)[:, None], columns, 1)
        return asyncio.create_task(self.batcher.submit({"x": x}, **options))


def case(test):
    """Run an asynchronous test, and not for ever."""

    def run():
        asyncio.run(asyncio.wait_for(test(), 20))

    run.__name__ = test.__name__
    return run


def values(ran):
    return ran.outputs["y"][:, 0].tolist()


@case
async def test_what_waits_together_runs_together():
    async with Made() as made:
        made.gate.clear()
        first = made.ask(1)
        await asyncio.sleep(0.01)
        others = [made.ask(i) for i in range(2, 8)]
        await asyncio.sleep(0.01)
        assert made.batcher.queued == 6
        made.gate.set()
        found = await asyncio.gather(first, *others)
    assert [values(ran) for ran in found] == [[2.0 * i] for i in range(1, 8)]
    assert made.log == [1, 4, 2]
    assert found[1].batch == 4
    assert found[1].queue_ns > 0
    assert made.watcher.batches == [1, 4, 2]


@case
async def test_rows_are_counted_and_a_large_request_goes_alone():
    async with Made() as made:
        made.gate.clear()
        asked = [made.ask(*rows) for rows in ([0], [1, 2], [3, 4, 5], [6], range(9))]
        await asyncio.sleep(0.01)
        made.gate.set()
        found = await asyncio.gather(*asked)
    assert [len(values(ran)) for ran in found] == [1, 2, 3, 1, 9]
    assert made.log == [4, 3, 9] or sum(made.log) == 16
    assert max(made.log) == 9


@case
async def test_other_shapes_and_dtypes_do_not_mix():
    async with Made() as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        asked = [made.ask(1), made.ask(2, columns=2), made.ask(3), made.ask(4, dtype=np.float64)]
        await asyncio.sleep(0.01)
        made.gate.set()
        found = await asyncio.gather(first, *asked)
    assert made.log == [1, 2, 1, 1]
    assert [ran.outputs["y"].shape for ran in found[1:]] == [(1, 1), (1, 2), (1, 1), (1, 1)]
    assert found[4].outputs["y"].dtype == np.float64


@case
async def test_what_does_not_batch_runs_alone():
    async with Made() as made:
        made.gate.clear()
        asked = [made.ask(i, batches=False) for i in range(4)]
        await asyncio.sleep(0.01)
        made.gate.set()
        await asyncio.gather(*asked)
    assert made.log == [1, 1, 1, 1]


@case
async def test_it_waits_for_company_as_long_as_it_is_told():
    async with Made(max_delay_ms=60) as made:
        begun = time.monotonic()
        asked = [made.ask(1)]
        await asyncio.sleep(0.02)
        asked.append(made.ask(2))
        await asyncio.gather(*asked)
        assert time.monotonic() - begun > 0.05
        assert made.log == [2]
        begun = time.monotonic()
        await asyncio.gather(*(made.ask(i) for i in range(4)))  # full: nobody waits
        assert time.monotonic() - begun < 0.05


@case
async def test_a_bad_request_fails_alone():
    async with Made() as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        asked = [made.ask(1), made.ask(BAD), made.ask(3), made.ask(-2)]
        await asyncio.sleep(0.01)
        made.gate.set()
        found = await asyncio.gather(first, *asked, return_exceptions=True)
    assert [values(found[i]) for i in (1, 3)] == [[2.0], [6.0]]
    assert isinstance(found[2], BadRequest)
    assert isinstance(found[4], Unavailable)
    assert made.watcher.restarts == []


@case
async def test_one_that_ends_the_worker_costs_its_mates_nothing():
    async with Made() as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        asked = [made.ask(1), made.ask(POISON), made.ask(3)]
        await asyncio.sleep(0.01)
        made.gate.set()
        found = await asyncio.gather(first, *asked, return_exceptions=True)
        assert [values(found[i]) for i in (0, 1, 3)] == [[0.0], [2.0], [6.0]]
        assert isinstance(found[2], Unavailable)
        assert "ended while it ran this request" in str(found[2])
        assert made.watcher.restarts == ["worker", "worker"]
        assert values(await made.ask(5)) == [10.0]


@case
async def test_a_worker_that_dies_idle_is_started_again():
    async with Made() as made:
        made.workers[0].die()
        assert not made.batcher.ready
        for _ in range(100):
            await asyncio.sleep(0.01)
            if made.batcher.ready:
                break
        assert made.batcher.ready
        assert made.watcher.restarts == ["worker"]


@case
async def test_it_tries_again_until_a_worker_starts():
    async with Made() as made:
        made.failing = 2
        made.workers[0].die()
        assert values(await made.ask(4)) == [8.0]
        assert made.watcher.restarts == ["worker"] * 3


@case
async def test_a_full_queue_refuses_at_once():
    async with Made(queue=2) as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        waiting = [made.ask(1), made.ask(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="2 requests wait already"):
            await made.ask(3)
        made.gate.set()
        await asyncio.gather(first, *waiting)


@case
async def test_deadlines_and_callers_who_left():
    async with Made() as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        late, left, stays = made.ask(1, timeout_s=0.03), made.ask(2), made.ask(3)
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(DeadlineExceeded, match=r"not answered within 0\.03 s"):
            await late
        made.gate.set()
        await asyncio.gather(first, stays)
        assert made.log == [1, 1]  # neither was run


@case
async def test_a_batcher_that_fails_is_started_again():
    async with Made() as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        asked = [made.ask(1), made.ask(2)]
        made.watcher.ran = None  # a bug of ours, once a batch ran
        made.gate.set()
        found = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(found[0], ServingError)
        del made.watcher.ran
        assert "batcher" in made.watcher.restarts
        await asyncio.gather(*asked, return_exceptions=True)
        assert values(await made.ask(2)) == [4.0]


@case
async def test_a_bug_about_one_request_does_not_stop_the_loop():
    async with Made() as made:
        with pytest.raises(ServingError, match="the batcher failed"):
            await made.batcher.submit({})  # nothing has no rows
        assert values(await made.ask(2)) == [4.0]
        assert made.watcher.restarts == ["batcher"]


@case
async def test_who_has_left_takes_no_place_in_the_queue():
    async with Made(queue=2) as made:
        made.gate.clear()
        first = made.ask(0)
        await asyncio.sleep(0.01)
        left = [made.ask(1), made.ask(2, timeout_s=0.01)]
        await asyncio.sleep(0)
        left[0].cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert made.batcher.queued == 0
        waiting = [made.ask(3), made.ask(4)]
        await asyncio.sleep(0.01)
        made.gate.set()
        await asyncio.gather(first, *waiting)


@case
async def test_it_closes_while_no_worker_starts():
    async with Made() as made:
        made.failing = 1000
        made.workers[0].die()
        asked = [made.ask(1, timeout_s=0.05), made.ask(2)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(made.batcher.close(), 10)
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], DeadlineExceeded)
    assert isinstance(found[1], Unavailable)


@case
async def test_it_closes_while_an_engine_hangs_that_nobody_waits_for():
    async with Made() as made:
        made.gate.clear()
        with pytest.raises(DeadlineExceeded):
            await made.ask(1, timeout_s=0.05)
        await asyncio.wait_for(made.batcher.close(), 10)


@case
async def test_closing_answers_what_waits_and_takes_nothing_more():
    async with Made() as made:
        made.gate.clear()
        asked = [made.ask(i) for i in range(9)]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(made.batcher.close())
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="is being unloaded"):
            await made.ask(1)
        made.gate.set()
        await closing
        assert [values(ran) for ran in await asyncio.gather(*asked)] == [
            [2.0 * i] for i in range(9)
        ]
