"""What a run of the benchmark found, as it is printed and kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import msgspec

from sam_deploy.errors import InputError

Side = Literal["ours", "peer"]
_AS_CLOSE = 1.1
_ROUNDING = 1e-5  # two right computations in FP32 differ by no more
PACKAGES = (
    "sam-deploy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt-rtx-cu13",
    "onnx", "onnxslim", "onnxsim", "openvino", "nncf",
)  # fmt: skip


class BatchTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size: the median of the rounds' medians, the distance between their quartiles, the
    95th percentile of all runs, and what the median makes in samples a second.
    """

    batch: int
    median_ms: float
    spread_ms: float
    p95_ms: float
    samples_per_s: float
    relative_rms: float


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant that was timed. `load_s` is from the start of its process to its first answer,
    `peak_bytes` the most memory that the process held, 0 where the system does not tell.
    """

    name: str
    side: Side
    precision: str
    load_s: float
    peak_bytes: int
    timings: list[BatchTiming]


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant that has no time, and why: it does not run here, or it `disagrees`, which is to
    compute something else than PyTorch.
    """

    name: str
    side: Side
    reason: str
    disagrees: bool = False


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How a result came about; `command` makes it again."""

    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    threads: int
    rounds: int


class BenchResult(Measured, frozen=True, kw_only=True):
    """Everything of one race."""

    entries: list[Entry]
    left_out: list[LeftOut]

    def csv(self) -> str:
        """A row for each contestant and batch."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = BatchTiming.__struct_fields__
        writer.writerow(["name", "side", "precision", "load_s", "peak_bytes", *columns])
        for entry in self.entries:
            about = [entry.name, entry.side, entry.precision, entry.load_s, entry.peak_bytes]
            for timing in entry.timings:
                writer.writerow([*about, *msgspec.structs.astuple(timing)])
        return text.getvalue()


Timed = tuple[BatchTiming, Entry]


def by_batch(entries: list[Entry]) -> list[list[Timed]]:
    """For each batch all times, the fastest first."""
    timed = [[(timing, entry) for timing in entry.timings] for entry in entries]
    return [sorted(one, key=lambda pair: pair[0].median_ms) for one in zip(*timed, strict=True)]


def best_and_its_peer(timed: list[Timed]) -> tuple[Timed | None, Timed | None]:
    """Of one batch, the fastest first, the fastest of ours and the fastest peer that is as close to
    PyTorch: at most 1.1 times as far, or within FP32's rounding.
    """
    ours = next((pair for pair in timed if pair[1].side == "ours"), None)
    if ours is None:
        return None, None
    limit = max(_AS_CLOSE * ours[0].relative_rms, _ROUNDING)
    close = (pair for pair in timed if pair[1].side == "peer" and pair[0].relative_rms <= limit)
    return ours, next(close, None)


def versions() -> dict[str, str]:
    """Those of the packages that a time depends on, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_numbers(batches: Sequence[int], rounds: int, threads: int) -> None:
    """Refuse batch sizes, rounds and threads that are none.

    Raises:
        InputError: saying which.
    """
    if not batches or min(batches) < 1 or len(set(batches)) != len(batches):
        given = ", ".join(map(str, batches)) or "none"
        raise InputError(f"the batches are {given}; expected sizes of 1 or more, each once.")
    if rounds < 1:
        raise InputError(f"there are {rounds} rounds; expected 1 or more.")
    if threads < 1:
        raise InputError(f"there are {threads} threads; expected 1 or more.")
