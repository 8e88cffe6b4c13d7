"""A contestant: a way to compute the model, made and run in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sam_deploy.bench.result import Side
from sam_deploy.errors import CheckFailed, SamDeployError
from sam_deploy.recipe import Tolerances
from sam_deploy.runner import Array, Arrays

Run = Callable[[Mapping[str, Array]], Arrays]
_STOP_S = 10.0
_REASON_CHARS = 300


class Failed(Exception):
    """It does not start, its process ended, or it raised an error."""


class Disagrees(Failed):
    """It computes something else than the reference."""


@dataclass(frozen=True)
class Contestant:
    """`make` is called in the process, so it must be picklable; what it gives runs one batch.

    `tolerances` are what its outputs are held to for its time to count.
    """

    name: str
    side: Side
    precision: str
    tolerances: Tolerances
    make: Callable[[], Run]


@dataclass(frozen=True)
class Turn:
    """What one turn gave: the time of each run, and the outputs of the last."""

    times_ms: list[float]
    outputs: Arrays


@dataclass(frozen=True)
class _Failure:
    reason: str
    disagrees: bool


class ContestantProcess:
    """The process of a contestant. It loads at once; `loaded_s` waits for it."""

    def __init__(self, contestant: Contestant, inputs: Mapping[int, Arrays]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(contestant.make, dict(inputs), theirs), daemon=True
        )
        self._begun = time.perf_counter()
        self._process.start()
        theirs.close()  # so that its end is seen here

    def loaded_s(self) -> float:
        """Seconds from its start to the first answer, which this waits for.

        Raises:
            Failed: it does not load.
        """
        self._answer()
        return time.perf_counter() - self._begun

    def turn(self, batch: int, runs: int) -> Turn:
        """One run that does not count, then so many that do.

        Raises:
            Failed: it failed.
        """
        self._ask((batch, runs))
        found = self._answer()
        assert isinstance(found, Turn)
        return found

    def stop(self) -> int:
        """End it, whatever it is doing; the most bytes of memory that it held, 0 if it is gone."""
        peak_bytes = 0
        with suppress(Failed, OSError):
            self._ask(None)
            peak_bytes = int(self._answer())
        self._process.join(_STOP_S)
        self._process.kill()
        self._process.join()
        self._connection.close()
        return peak_bytes

    def _ask(self, what: object) -> None:
        with suppress(OSError):  # it may have ended, and its reason be waiting
            self._connection.send(what)

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_STOP_S)
            raise Failed(f"its process ended with {self._process.exitcode}") from None
        if isinstance(answer, _Failure):
            raise (Disagrees if answer.disagrees else Failed)(answer.reason)
        return answer


def _serve(make: Callable[[], Run], inputs: dict[int, Arrays], connection: Connection) -> None:
    try:
        run = make()
        run(inputs[min(inputs)])
        connection.send(0.0)
        while asked := connection.recv():
            batch, runs = asked
            x = inputs[batch]
            outputs, times_ms = run(x), []
            for _ in range(runs):
                begun = time.perf_counter()
                outputs = run(x)
                times_ms.append(1e3 * (time.perf_counter() - begun))
            connection.send(Turn(times_ms, outputs))
        connection.send(_peak_bytes())
    except (EOFError, OSError):
        pass  # who asked is gone
    except Exception as error:  # anything may go wrong in a contestant
        told = str(error)[:_REASON_CHARS]
        if not isinstance(error, SamDeployError):  # whose words stand for themselves
            told = f"{type(error).__name__}: {told}"
        with suppress(OSError):
            connection.send(_Failure(told, disagrees=isinstance(error, CheckFailed)))


def _peak_bytes() -> int:
    status = Path("/proc/self/status")  # getrusage would tell the most of the parent's, too
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) << 10 if found else 0
