"""A worker seen from the server: start it, give it jobs, notice that it died."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import numpy as np

from sam_deploy.runner import Array, Arrays
from sam_deploy.serving.failures import ServingError
from sam_deploy.serving.worker.job import (
    MOST_BYTES,
    Begin,
    Done,
    Failed,
    Job,
    Message,
    Ready,
    decode,
    encode,
    error_of,
)
from sam_deploy.serving.worker.memory import Memory

_STDERR = 2
_FAREWELL_S = 5.0


class WorkerDied(Exception):
    """The worker's process ended; what it was running is lost."""


@dataclass(eq=False)
class Worker:
    """A process with an engine in it. One job at a time: others wait their turn.

    `on_death` is called once it can take no more.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket
    inputs: Memory
    outputs: Memory
    ready: Ready = field(default_factory=lambda: Ready("", ""))
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _answer: asyncio.Future[Message] | None = None
    _dead: bool = False
    on_death: Callable[[], None] = lambda: None

    @classmethod
    async def start(cls, begin: Begin) -> Worker:
        """Start a process and have it load the bundle.

        Raises:
            SamDeployError: it cannot be loaded; as `sam_deploy.load` says.
            WorkerDied: the process ended meanwhile.
            OSError: the system gives no process, memory or descriptors.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as undo, theirs:
            undo.callback(ours.close)
            inputs = Memory.new("inputs")
            undo.callback(inputs.close)
            outputs = Memory.new("outputs")
            undo.callback(outputs.close)
            fds = (theirs.fileno(), inputs.fd, outputs.fd)
            process = subprocess.Popen(  # noqa: S603  (this package's own module)
                [sys.executable, "-m", "sam_deploy.serving.worker.main", *map(str, fds)],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,  # stdout is the server's
                pass_fds=fds,
                process_group=0,  # Ctrl-C does not reach it, before it can ignore it either
            )
            undo.pop_all()
        ours.setblocking(False)
        worker = cls(process, ours, inputs, outputs)
        asyncio.get_running_loop().add_reader(ours, worker._read)
        try:
            answer = await worker._ask(begin)
        except BaseException:
            await worker.close()
            raise
        if isinstance(answer, Ready):
            worker.ready = answer
            return worker
        await worker.close()
        raise error_of(answer) if isinstance(answer, Failed) else WorkerDied(str(answer))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take jobs."""
        return not self._dead

    async def run(self, inputs: Mapping[str, Sequence[Array]]) -> Arrays:
        """One inference; of each input the parts of its batch.

        Raises:
            InputError, MachineError, CheckFailed: as the engine raised it.
            ServingError: the engine failed otherwise: a bug.
            WorkerDied: the process ended; start another.
        """
        async with self._turn:
            await self._settled()
            answer = await self._ask(Job(self.inputs.put(inputs)))
            if isinstance(answer, Done):
                views = self.outputs.views(answer.outputs)
                return {name: np.array(view) for name, view in views.items()}
        raise error_of(answer) if isinstance(answer, Failed) else ServingError(str(answer))

    async def close(self) -> None:
        """Let the process end, and end it if it does not. Twice is once."""
        if self.connection.fileno() < 0:
            return
        self._died()
        asyncio.get_running_loop().remove_reader(self.connection)
        self.connection.close()  # what it waits for
        try:  # shielded: a caller who is cancelled leaves no process behind
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._reap))
        finally:
            self.inputs.close()
            self.outputs.close()

    async def _settled(self) -> None:
        """Wait for the answer that a cancelled caller left: its inputs may still be read."""
        if self._answer is not None:
            await asyncio.wait([self._answer])

    async def _ask(self, message: Message) -> Message:
        if self._dead:
            raise WorkerDied(self._how())
        data = encode(message)
        answer = self._answer = asyncio.get_running_loop().create_future()
        try:
            self.connection.send(data)
        except OSError:  # it died, and the loop has not read that yet
            self._died()
        return await asyncio.shield(answer)

    def _read(self) -> None:
        try:
            data = self.connection.recv(MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.connection)
            self._died()
        elif self._answer is not None:
            answer, self._answer = self._answer, None
            answer.set_result(decode(data))

    def _died(self) -> None:
        self._dead = True
        self.on_death()
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.set_exception(WorkerDied(self._how()))
            answer.exception()  # its caller may be gone

    def _how(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.1)
        code = self.process.returncode
        return f"the worker of process {self.process.pid} ended" + (
            "" if code is None else f" with {code}" if code >= 0 else f" by signal {-code}"
        )

    def _reap(self) -> None:
        try:
            self.process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
