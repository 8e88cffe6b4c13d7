"""The published curves as tables: what each point costs, and how it grew from the last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Point = Mapping[str, Any]


def growth_tables(record: Mapping[str, Any]) -> list[str]:
    """A table a curve, of what `benchmarks/growth.py` wrote."""
    return [
        *_table(
            "batch",
            record["batches"],
            {"latency ms": _of("ms"), "memory MB": _of("peak_mb")},
            powers=True,
        ),
        *_table(
            "px a side",
            record["sizes"],
            {
                "latency ms": _of("ms"),
                "memory MB": _of("peak_mb"),
                "export s": _of("export", "seconds"),
                "export MB": _of("export", "peak_mb"),
            },
            powers=True,
        ),
        *_table(
            "model",
            record["models"],
            {
                "MB of weights": _of("onnx_mb"),
                "export s": _of("seconds"),
                "export MB": _of("peak_mb"),
            },
        ),
        *_table(
            "images",
            record["images"],
            {
                "export s": _of("seconds"),
                "export MB": _of("peak_mb"),
                "relative RMS": _of("relative_rms"),
            },
        ),
    ]


def _of(*path: str) -> Callable[[Point], float]:
    def value(point: Point) -> float:
        found: Any = point
        for name in path:
            found = found[name]
        return float(found)

    return value


def _table(
    head: str,
    curve: Mapping[str, Point],
    columns: Mapping[str, Callable[[Point], float]],
    *,
    powers: bool = False,
) -> list[str]:
    """The rows; with `powers` behind each figure the power of `head` by which it grew."""
    lines = [f"| {head} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    before: tuple[int, Point] | None = None
    for label, point in curve.items():
        cells = []
        for name, value in columns.items():
            cell = f"{value(point):.4f}" if name == "relative RMS" else f"{value(point):.0f}"
            if before is not None:
                power = math.log(value(point) / value(before[1])) / math.log(int(label) / before[0])
                cell += f" ({power:.1f})"
            cells.append(cell)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
        before = (int(label), point) if powers else None
    return [*lines, ""]
