"""Fair timings: a process for each contestant, rounds in turn, agreement before any time counts."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sam_deploy.agreement import relative_rms

Array = npt.NDArray[Any]
Runner = Callable[[Array], Array]
MakeRunner = Callable[[], Runner]

THREADS = os.cpu_count() or 1
# For the contestants' processes: waiting threads of one must not spin on the cores of another.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
WARM_UP_ROUNDS = 3


class Timing(NamedTuple):
    """One contestant's rounds: median, distance between the quartiles, and 95th percentile."""

    median_ms: float
    spread_ms: float
    p95_ms: float


class Failure(Exception):
    """A contestant that does not start, ends, or computes something else."""


def onnx_contestant(path: Path, provider: str = "CPUExecutionProvider") -> MakeRunner:
    """The ONNX file `path` on an ONNX Runtime provider."""
    return partial(_make_onnx, str(path), provider)


def _make_onnx(path: str, provider: str) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider.startswith("CUDA"):
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} did not start; ONNX Runtime has {session.get_providers()}")
    name = session.get_inputs()[0].name
    dtype = np.float16 if "16" in session.get_inputs()[0].type else np.float32
    return lambda x: np.asarray(session.run(None, {name: x.astype(dtype)})[0])


def race(
    contestants: Mapping[str, MakeRunner],
    x: Array,
    reference: Array,
    *,
    rounds: int,
    tolerance: float,
    failed: dict[str, str] | None = None,
) -> dict[str, Timing]:
    """Time every contestant on `x`, `rounds` times in turn.

    One that fails, its process or an output with a relative RMS to `reference` above `tolerance`,
    is left out, and the reason is put into `failed`.

    Raises:
        SystemExit: one failed and `failed` is not given.
    """
    running = {name: _Contestant(make, x) for name, make in contestants.items()}
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for round_index in range(-WARM_UP_ROUNDS, rounds):
        for name, contestant in list(running.items()):
            try:
                seconds, output = contestant.round()
                error = relative_rms(output, reference)
                if not error <= tolerance:
                    raise Failure(f"disagrees with PyTorch: relative RMS {error:.1e}")
            except Failure as failure:
                running.pop(name).stop()
                if failed is None:
                    for other in running.values():
                        other.stop()
                    raise SystemExit(f"{name}: {failure}") from None
                failed[name] = str(failure)
                continue
            if round_index >= 0:
                times_ms[name].append(seconds * 1e3)
    for contestant in running.values():
        contestant.stop()
    return {name: _timing(times_ms[name]) for name in running}


class _Contestant:
    """A process that makes a runner, and runs it on `x` when it is asked."""

    def __init__(self, make: MakeRunner, x: Array) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, x, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here

    def round(self) -> tuple[float, Array]:
        """Seconds and output of one run.

        Raises:
            Failure: it raised an error, or its process ended.
        """
        with suppress(OSError):  # it may have ended, and its reason be waiting
            self._connection.send(True)
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise Failure(f"its process ended with {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise Failure(answer)
        seconds, output = answer
        return seconds, output

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        with suppress(OSError):  # it may have ended
            self._connection.send(False)
        self._process.join(10)
        self._process.kill()


def _timing(values_ms: list[float]) -> Timing:
    low, _, high = statistics.quantiles(values_ms, n=4)
    p95 = float(np.percentile(values_ms, 95))
    return Timing(round(statistics.median(values_ms), 3), round(high - low, 3), round(p95, 3))


def _serve(make: MakeRunner, x: Array, connection: Connection) -> None:
    try:
        run = make()
        while connection.recv():
            start = time.perf_counter()
            output = run(x)
            connection.send((time.perf_counter() - start, output))
    except Exception as error:  # anything may go wrong in a contestant
        connection.send(f"{type(error).__name__}: {error}")
