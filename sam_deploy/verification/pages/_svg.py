"""What plots are made of: a logarithmic scale, axes, bars. Widths are in per cent and heights in
pixels, so that a plot fits any window and its text keeps its size, without a script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._elements import Content, element

_MAX_TICKS = 7


@dataclass(frozen=True)
class Decades:
    """A logarithmic scale from 10^low to 10^high."""

    low: int
    high: int

    @classmethod
    def around(cls, values: Iterable[float]) -> Decades:
        """The whole decades that hold all positive finite `values`; one decade where none is."""
        logs = [math.log10(value) for value in values if 0 < value < math.inf]
        if not logs:
            return cls(-1, 0)
        low = math.floor(min(logs))
        return cls(low, max(math.ceil(max(logs)), low + 1))

    def part(self, value: float) -> float:
        """Where `value` lies, from 0 to 1; what is beyond an end is there, NaN at the upper one."""
        if not value < math.inf:
            return 1.0
        if value <= 0:
            return 0.0
        return min(max((math.log10(value) - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Powers of ten, not too many: where they lie and how they are written."""
        step = math.ceil((self.high - self.low + 1) / _MAX_TICKS)
        powers = range(self.low, self.high + 1, step)
        return [((p - self.low) / (self.high - self.low), f"1e{p}" if p else "1") for p in powers]


def percent(part: float) -> str:
    """A part of the width, as SVG takes it."""
    return f"{100 * part:.3f}%"


def plot(
    name: str,
    height: int,
    *content: Content,
    below: int = 24,
    rows: Sequence[tuple[float, str]] = (),
    columns: Sequence[tuple[float, str]] = (),
) -> Element:
    """A plot of `height` pixels, with `below` more for what is written there.

    `rows` are the y axis' ticks and `columns` the x axis': where, as parts, and their labels.
    """
    grid = [mark for part, label in rows for mark in _row(_y(part, height), label)]
    marks = [mark for part, label in columns for mark in _column(percent(part), height, label)]
    base = element("line", class_="base", x1="0", x2="100%", y1=height, y2=height)
    return element(
        "svg",
        *grid,
        *content,
        base,
        *marks,
        class_="plot",
        role="img",
        aria_label=name,
        width="100%",
        height=height + below,
    )


def _row(y: float, label: str) -> tuple[Element, Element]:
    line = element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y)
    return line, element("text", label, class_="axis y", x="-8", y=y + 4)


def _column(x: str, height: int, label: str) -> tuple[Element, Element]:
    line = element("line", class_="tick", x1=x, x2=x, y1=height, y2=height + 5)
    return line, element("text", label, class_="axis x", x=x, y=height + 18)


def stretched(points: Sequence[tuple[float, float]], height: int) -> Element:
    """A curve through `points`, given as parts from the left and from below."""
    path = " ".join(f"{1000 * x:.1f},{_y(y, height):.1f}" for x, y in points)
    line = element("polyline", points=path, class_="curve")
    return element(
        "svg",
        line,
        width="100%",
        height=height,
        viewBox=f"0 0 1000 {height}",
        preserveAspectRatio="none",
    )


def bar(part: float, title: str | None = None, kind: str = "") -> Element:
    """A bar in a cell, `part` of its width."""
    full = element("rect", class_="track", width="100%", height="100%")
    filled = element("rect", class_=kind or None, width=percent(_within(part)), height="100%")
    return element("svg", full, filled, title and element("title", title), class_="bar")


def _within(part: float) -> float:
    return min(max(part, 0.0), 1.0) if part == part else 0.0


def _y(part: float, height: int) -> float:
    return height * (1 - part)
