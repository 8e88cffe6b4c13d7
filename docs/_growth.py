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
            "batch", record["batches"], {"latency ms": _of("ms"), "memory MB": _of("peak_mb")}, int
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
            int,
        ),
        *_table(
            "model",
            record["models"],
            {
                "MB of weights": _of("onnx_mb"),
                "export s": _of("seconds"),
                "export MB": _of("peak_mb"),
            },
            None,
        ),
        *_table(
            "images",
            record["images"],
            {
                "export s": _of("seconds"),
                "export MB": _of("peak_mb"),
                "relative RMS": _of("relative_rms"),
            },
            None,
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
    number: Callable[[str], float] | None,
) -> list[str]:
    """The rows; behind latency and memory the power of `head` by which they grew from row to row,
    where `number` makes one of it.
    """
    lines = [f"| {head} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    before: tuple[float, Point] | None = None
    for label, point in curve.items():
        cells = []
        for name, value in columns.items():
            cell = f"{value(point):.4f}" if name == "relative RMS" else f"{value(point):.0f}"
            if number is not None and before is not None:
                power = math.log(value(point) / value(before[1])) / math.log(
                    number(label) / before[0]
                )
                cell += f" ({power:.1f})"
            cells.append(cell)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
        before = None if number is None else (number(label), point)
    return [*lines, ""]
