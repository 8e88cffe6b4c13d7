"""`sam_deploy.bench.race` for a single input and output: runners of arrays, one batch at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from sam_deploy.bench.contestant import Contestant, Run
from sam_deploy.bench.race import race as race_in_turn
from sam_deploy.example import Example
from sam_deploy.progress import Progress
from sam_deploy.recipe import DEFAULT_TOLERANCES

Array = npt.NDArray[Any]
Runner = Callable[[Array], Array]
MakeRunner = Callable[[], Runner]

THREADS = os.cpu_count() or 1
# For the contestants' processes: waiting threads of one must not spin on the cores of another.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Timing(NamedTuple):
    """One contestant's rounds: median, distance between the quartiles, and 95th percentile."""

    median_ms: float
    spread_ms: float
    p95_ms: float


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
    """Time every contestant on `x`, in `rounds` in turn.

    One that fails, its process or an output with a relative RMS to `reference` above `tolerance`,
    is left out, and the reason is put into `failed`.

    Raises:
        SystemExit: one failed and `failed` is not given.
    """
    tolerances = msgspec.structs.replace(DEFAULT_TOLERANCES["fp32"], relative_rms=tolerance)
    entries, left_out = race_in_turn(
        [
            Contestant(name, "peer", "", tolerances, partial(_by_name, make))
            for name, make in contestants.items()
        ],
        {len(x): Example({"x": x}, {"output": reference})},
        rounds,
        Progress(),
    )
    if failed is None and left_out:
        raise SystemExit(f"{left_out[0].name}: {left_out[0].reason}")
    if failed is not None:
        failed.update({one.name: one.reason for one in left_out})
    times = {entry.name: entry.timings[0] for entry in entries}
    return {
        name: Timing(round(t.median_ms, 3), round(t.spread_ms, 3), round(t.p95_ms, 3))
        for name, t in times.items()
    }


def _by_name(make: MakeRunner) -> Run:
    run = make()
    return lambda inputs: {"output": np.asarray(run(inputs["x"]))}
