"""Fair timings: a process for each contestant, rounds in turn, agreement before any time counts."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
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
    """One contestant's rounds: median, and the distance between the quartiles."""

    median_ms: float
    spread_ms: float


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
        raise SystemExit(f"{provider} did not start; ONNX Runtime has {session.get_providers()}")
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
) -> dict[str, Timing]:
    """Time every contestant on `x`, `rounds` times in turn.

    Raises:
        SystemExit: an output's relative RMS to `reference` is above `tolerance`.
    """
    context = multiprocessing.get_context("spawn")
    connections: dict[str, Connection] = {}
    processes = []
    for name, make in contestants.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(make, x, theirs), daemon=True)
        process.start()
        processes.append(process)
        connections[name] = ours
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for round_index in range(rounds + WARM_UP_ROUNDS):
        for name, connection in connections.items():
            connection.send(True)
            seconds, output = connection.recv()
            error = relative_rms(output, reference)
            if not error <= tolerance:
                raise SystemExit(f"{name} disagrees with PyTorch: relative RMS {error:.1e}")
            if round_index >= WARM_UP_ROUNDS:
                times_ms[name].append(seconds * 1e3)
    for connection in connections.values():
        connection.send(False)
    for process in processes:
        process.join()
    return {name: _timing(values) for name, values in times_ms.items()}


def _timing(values_ms: list[float]) -> Timing:
    low, _, high = statistics.quantiles(values_ms, n=4)
    return Timing(round(statistics.median(values_ms), 2), round(high - low, 2))


def _serve(make: MakeRunner, x: Array, connection: Connection) -> None:
    run = make()
    while connection.recv():
        start = time.perf_counter()
        output = run(x)
        connection.send((time.perf_counter() - start, output))


def machine() -> dict[str, str]:
    """What a figure was measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {"cpu": cpu, "cores": str(THREADS), "system": platform.system().lower()}
