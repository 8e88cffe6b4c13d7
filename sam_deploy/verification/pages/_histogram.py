"""How many samples have which error, as a plot."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._elements import element
from sam_deploy.verification.pages._svg import Decades, percent, plot
from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.result import Histogram

_HEIGHT = 160
_LEAST = 2  # pixels: one bad sample among ten thousand must be seen


def histogram_plot(name: str, histogram: Histogram) -> Element:
    """The plot: errors on a logarithmic axis, each bar with its count as a tooltip."""
    bins = list(zip(pairwise(histogram.edges), histogram.counts, strict=True))
    used = [number for number, (_, count) in enumerate(bins) if count]
    shown = bins[used[0] : used[-1] + 1] if used else bins
    scale = Decades.around(edge for pair, _ in shown for edge in _finite(*pair))
    most = max((count for _, count in bins), default=0)
    ends = (histogram.edges[0], histogram.edges[-1]) if bins else (0.0, 0.0)
    bars = [
        _bar(scale, low, high, count, most, _span(low, high, ends))
        for (low, high), count in shown
        if count
    ]
    return plot(
        f"Errors of {name}",
        _HEIGHT,
        *bars,
        rows=_counts(most),
        columns=scale.ticks(),
    )


def _bar(scale: Decades, low: float, high: float, count: int, most: int, span: str) -> Element:
    left, right = scale.part(low), scale.part(high)
    height = max(_HEIGHT * count / most, _LEAST)
    return element(
        "rect",
        element("title", f"{counted(count, 'sample')}: {span}"),
        class_="bin",
        x=percent(left),
        width=percent(right - left),
        y=_HEIGHT - height,
        height=height,
    )


def _finite(low: float, high: float) -> tuple[float, float]:
    """A bin that begins at 0 or has no end is drawn a decade wide."""
    return low if low > 0 else high / 10, high if high < math.inf else 10 * low


def _span(low: float, high: float, ends: tuple[float, float]) -> str:
    """What is beyond an end is counted in the bin there."""
    if low == ends[0]:
        return f"an error of {high:.1e} or less"
    if high == ends[1]:
        return f"an error of {low:.1e} or more"
    return f"an error of {low:.1e} to {high:.1e}"


def _counts(most: int) -> list[tuple[float, str]]:
    if most < 2:
        return [(0, "0"), (1, str(most))] if most else [(0, "0")]
    middle = most // 2
    return [(0, "0"), (middle / most, str(middle)), (1, str(most))]
