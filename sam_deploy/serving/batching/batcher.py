"""One supervised batcher a model: what waits is run, whatever dies is started again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, Protocol

from sam_deploy.errors import InputError, SamDeployError
from sam_deploy.runner import Arrays
from sam_deploy.serving.batching.item import BatchOptions, Item, Ran, divided, joined, taken
from sam_deploy.serving.failures import (
    BadRequest,
    DeadlineExceeded,
    ServingError,
    Unavailable,
)
from sam_deploy.serving.worker import Worker, WorkerDied

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_log = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told what a batcher does."""

    def ran(self, rows: int, compute_ns: int) -> None:
        """A batch ran."""
        ...

    def restarted(self, what: Literal["worker", "batcher"]) -> None:
        """Something died, and was started again."""
        ...


class Batcher:
    """Runs the requests of one model on a worker, those that wait together in one batch.

    `start` starts a worker. A request that fails in company is run again alone, so that it alone
    fails; one that ends two workers alone is given up.
    """

    def __init__(
        self, start: Callable[[], Awaitable[Worker]], options: BatchOptions, observer: Observer
    ) -> None:
        self._start = start
        self._options = options
        self._observer = observer
        self._waiting: list[Item] = []
        self._running: list[Item] = []
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.worker: Worker | None = None

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether a request would be run now."""
        return self.worker is not None and self.worker.alive and not self._closing

    async def open(self) -> Worker:
        """Start the worker, and take requests from now on.

        Raises:
            SamDeployError, WorkerDied: as `Worker.start`.
        """
        self.worker = await self._started()
        self._task = asyncio.create_task(self._supervise())
        return self.worker

    async def submit(
        self, inputs: Arrays, *, timeout_s: float | None = None, batches: bool = True
    ) -> Ran:
        """Run `inputs`, with the batch first in each; in company unless `batches` is False.

        Raises:
            Unavailable: the queue is full, it is closing, or the request ends its workers.
            DeadlineExceeded: `timeout_s` passed first.
            BadRequest: the engine refuses the inputs.
            ServingError: the engine failed.
        """
        if self._closing:
            raise Unavailable("the model is being unloaded; try again")
        if len(self._waiting) >= self._options.queue:
            raise Unavailable(f"{len(self._waiting)} requests wait already; try again later")
        answer: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        item = Item(inputs, answer, time.perf_counter_ns(), batches)
        self._waiting.append(item)
        self._arrived.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(f"not answered within {timeout_s:g} s") from None
        finally:
            if answer.cancelled() and item in self._waiting:
                self._waiting.remove(item)  # who has left takes no place in the queue

    async def drain(self) -> None:
        """Wait until all that was submitted is answered, or its callers have left."""
        while answers := [item.answer for item in self._unanswered()]:
            await asyncio.wait(answers)

    async def close(self) -> None:
        """Take nothing more, answer what waits, and end the worker. Twice is once."""
        self._closing = True
        if self._task is not None:
            await self.drain()
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self.worker is not None:
            await self.worker.close()

    async def _supervise(self) -> None:
        while True:
            try:
                await self._serve()
            except Exception:  # a bug of ours must not leave callers waiting
                _log.exception("the batcher failed and is started again")
                for item in self._running or self._waiting[:1]:  # the first may be what it is about
                    _fail(item, ServingError("the batcher failed; see the server's log"))
                self._running = []
                self._waiting = [item for item in self._waiting if not item.answer.done()]
                self._observer.restarted("batcher")
                await asyncio.sleep(_FIRST_PAUSE_S)  # what fails at once leaves the loop to others

    def _unanswered(self) -> list[Item]:
        return [item for item in (*self._running, *self._waiting) if not item.answer.done()]

    async def _started(self) -> Worker:
        worker = await self._start()
        worker.on_death = self._arrived.set  # noticed when nothing is asked, too
        return worker

    async def _serve(self) -> None:
        while True:
            if self.worker is not None and not self.worker.alive:
                _log.error("the worker ended while nothing ran; it is started again")
                await self._restart()
            self._waiting = [item for item in self._waiting if not item.answer.done()]
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._gathered()
            self._waiting = [item for item in self._waiting if not item.answer.done()]
            if self._waiting:
                self._running = taken(self._waiting, self._options.max_batch)
                chosen = set(map(id, self._running))
                self._waiting = [item for item in self._waiting if id(item) not in chosen]
                await self._run(self._running)
                self._running = []

    async def _gathered(self) -> None:
        """Wait for company, as long as the options say."""
        delay_s = self._options.max_delay_ms / 1e3
        if not delay_s or not self._waiting[0].batches:
            return
        until = asyncio.get_running_loop().time() + delay_s
        while sum(item.rows for item in self._waiting) < self._options.max_batch:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._arrived.wait()
            except TimeoutError:
                return

    async def _run(self, items: Sequence[Item]) -> None:
        try:
            await self._try(items)
            return
        except WorkerDied as error:
            _log.error("%s; it is started again", error)
            await self._restart()
        except (SamDeployError, ServingError) as error:
            if len(items) == 1:
                _fail(items[0], _answer_to(error))
                return
        for item in items:  # apart: what one of them does is not done to the others
            if item.answer.done():
                continue
            try:
                await self._try([item])
            except WorkerDied as error:
                _log.error("%s; it is started again", error)
                _fail(item, Unavailable("the engine ended while it ran this request"))
                await self._restart()
            except (SamDeployError, ServingError) as error:
                _fail(item, _answer_to(error))

    async def _try(self, items: Sequence[Item]) -> None:
        assert self.worker is not None
        begun = time.perf_counter_ns()
        outputs = await self.worker.run(joined(items))
        compute_ns = time.perf_counter_ns() - begun
        rows = sum(item.rows for item in items)
        self._observer.ran(rows, compute_ns)
        for item, part in zip(items, divided(outputs, items), strict=True):
            if not item.answer.done():
                item.answer.set_result(Ran(part, begun - item.since_ns, compute_ns, rows))

    async def _restart(self) -> None:
        """Start workers until one is ready; requests wait meanwhile, as long as they have time."""
        assert self.worker is not None
        await self.worker.close()
        pause_s = _FIRST_PAUSE_S
        while True:
            self._observer.restarted("worker")
            try:
                self.worker = await self._started()
                return
            except (SamDeployError, ServingError, WorkerDied, OSError) as error:
                _log.error("the worker cannot be started again: %s", error)
                for item in self._unanswered() if self._closing else ():
                    _fail(item, Unavailable("the model is being unloaded; its engine is gone"))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _answer_to(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    return BadRequest(str(error)) if isinstance(error, InputError) else Unavailable(str(error))


def _fail(item: Item, error: ServingError) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
