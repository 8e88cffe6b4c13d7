"""A published run of sam-bench as a table: ratios of what one run timed, above 1 ours is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sam_deploy.bench.result import Entry, Timed, best_and_its_peer, by_batch

_STOCK = {
    "TorchScript export on cpu",
    "dynamo export on cpu",
    "dynamo export, onnxslim on cpu",
    "dynamo export, onnxsim on cpu",
}
_VALUE_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
_NONE = "none ran"


def race_table(record: Mapping[str, Any]) -> list[str]:
    """What `benchmarks/bars.py` wrote, a row a figure; one that no batch has is left out."""
    batches = by_batch(msgspec.convert(record["entries"], list[Entry]))
    columns = [_figures(timed, record) | _floors(timed, record) for timed in batches]
    head = " | ".join(f"batch {timed[0][0].batch}" for timed in batches)
    lines = [f"| | {head} |", "|---|" + "---|" * len(columns)]
    for what in columns[0]:
        cells = [column[what] for column in columns]
        if any(cell != _NONE for cell in cells):
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    times = record["export"]
    slower = times["sam-export --fp16"] / times["dynamo alone"]
    what = "seconds of `sam-export --fp16` / of the dynamo export alone"
    return [*lines, f"| {what} | {slower:.2f} |" + " |" * (len(columns) - 1)]


def _figures(timed: list[Timed], record: Mapping[str, Any]) -> dict[str, str]:
    """What one batch size says; `timed` has the fastest first."""
    fp32, bf16, int8 = (_ours(timed, precision, record) for precision in _VALUE_BYTES)
    best, peer = best_and_its_peer(timed)
    others = [pair for pair in timed if pair[1].side == "peer" or pair is bf16]
    _, bf16_peer = best_and_its_peer(others)
    eager = _first(timed, lambda entry: entry.name == "torch eager")
    return {
        "FP32 on ONNX Runtime's CPU provider / the best untouched export there": _ratio(
            fp32, _first(timed, lambda entry: entry.name in _STOCK)
        ),
        "INT8 on ONNX Runtime's CPU provider / FP32": _ratio(int8, fp32),
        "the best bundle / PyTorch eager": _ratio(best, eager),
        "the best bundle / the best peer as close to PyTorch": _named(best, peer),
        "INT8 / OpenVINO's INT8 of the untouched export": _ratio(
            int8, _first(timed, lambda entry: entry.name == "OpenVINO INT8")
        ),
        "BF16 on OpenVINO / the best peer as close to PyTorch": _named(bf16, bf16_peer),
    }


def _floors(timed: list[Timed], record: Mapping[str, Any]) -> dict[str, str]:
    """How much of our times arithmetic takes at the peak, and traffic as fast as a copy."""
    found = {}
    for precision, size in _VALUE_BYTES.items():
        ours = _ours(timed, precision, record)
        arithmetic = traffic = _NONE
        if ours is not None and "peaks" in record:
            asked, peaks, batch = record["asked"], record["peaks"], ours[0].batch
            arithmetic_s = batch * asked["multiply-adds"] / peaks[precision]
            moved = size * (asked["weights"] + batch * asked["values"])
            arithmetic = f"{1e5 * arithmetic_s / ours[0].median_ms:.0f} %"
            traffic = f"{1e5 * moved / peaks['copied bytes'] / ours[0].median_ms:.0f} %"
        label = precision.upper()
        found[f"of {label}'s time, its multiply-adds at the measured peak of {label}"] = arithmetic
        found[f"of {label}'s time, its layers' traffic at the speed of a copy"] = traffic
    return found


def _ours(timed: list[Timed], precision: str, record: Mapping[str, Any]) -> Timed | None:
    """Our bundle of `precision` on the runtime that it is for; in BF16 where the CPU has that."""
    if precision == "bf16":
        if "bf16" not in record["machine"].get("vectors", ""):
            return None
        return _first(timed, lambda e: "-bf16-" in e.name and e.name.endswith(" on openvino"))
    return _first(
        timed,
        lambda e: e.side == "ours" and e.name.endswith(" on cpu") and e.precision == precision,
    )


def _first(timed: list[Timed], wanted: Callable[[Entry], bool]) -> Timed | None:
    return next((pair for pair in timed if wanted(pair[1])), None)


def _named(ours: Timed | None, other: Timed | None) -> str:
    if ours is None or other is None:
        return _NONE
    return f"{_ratio(ours, other)} ({ours[1].name} over {other[1].name})"


def _ratio(ours: Timed | None, other: Timed | None) -> str:
    if ours is None or other is None:
        return _NONE
    return f"{other[0].median_ms / ours[0].median_ms:.2f}"
