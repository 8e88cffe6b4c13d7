"""The error of every module in the network's order, as a plot."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._elements import element
from sam_deploy.verification.pages._svg import Decades, percent, plot, stretched
from sam_deploy.verification.result import LayerError, LayersReport

_HEIGHT = 240
_LONGEST = 22  # characters of a group's name below the plot
_CHARACTER_PX = 6.7  # as wide as one is in the labels' font
# How far apart labels must be, as parts of the width: in any window, and in a wide one.
_APART, _APART_WIDE = 0.055, 0.019


@dataclass(frozen=True)
class _Run:
    """Modules of one group that follow each other; `start` and `end` are parts of the width."""

    group: str
    start: float
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def curve_plot(report: LayersReport, allowed: float) -> Element:
    """The plot: error on a logarithmic axis, groups as bands, each module with a tooltip.

    `allowed` is the relative RMS that the outputs may have, a line.
    """
    layers = report.layers
    scale = Decades.around([allowed, *(layer.relative_rms for layer in layers)])
    places = [(number + 0.5) / len(layers) for number in range(len(layers))]
    points = [(x, scale.part(y.relative_rms)) for x, y in zip(places, layers, strict=True)]
    runs = _runs(layers)
    suggested = {suggestion.group for suggestion in report.suggestions}
    labels, below = _labels(runs, report.jump, suggested)
    return plot(
        "Relative RMS of every module",
        _HEIGHT,
        *(_band(n, run, report.jump, suggested) for n, run in enumerate(runs)),
        _limit(_HEIGHT * (1 - scale.part(allowed)), allowed),
        stretched(points, _HEIGHT),
        *(_module(x, y, layer, len(layers)) for (x, y), layer in zip(points, layers, strict=True)),
        *labels,
        below=below,
        rows=scale.ticks(),
    )


def _runs(layers: list[LayerError]) -> list[_Run]:
    found, start = [], 0
    for group, members in groupby(layers, key=lambda layer: layer.group):
        end = start + len(list(members))
        found.append(_Run(group, start / len(layers), end / len(layers)))
        start = end
    return found


def _band(number: int, run: _Run, jump: str | None, suggested: AbstractSet[str]) -> Element:
    kind = "jump" if run.group == jump else "suggested" if run.group in suggested else "odd"
    shown = kind if kind != "odd" or number % 2 else "even"
    return element(
        "rect",
        class_=f"band {shown}",
        x=percent(run.start),
        width=percent(run.end - run.start),
        y=0,
        height=_HEIGHT,
    )


def _limit(y: float, allowed: float) -> Element:
    title = element("title", f"the outputs may have {allowed:g}")
    return element("line", title, class_="limit", x1="0", x2="100%", y1=y, y2=y)


def _module(x: float, y: float, layer: LayerError, count: int) -> Element:
    title = f"{layer.module} ({layer.kind}), of {layer.group}: {layer.relative_rms:.2e}"
    top = _HEIGHT * (1 - y)
    kind, radius = ("dot", 2.5) if math.isfinite(layer.relative_rms) else ("dot lost", 4.0)
    # The whole column answers the mouse: among hundreds of modules a dot is hard to hit.
    return element(
        "g",
        element("title", title),
        element(
            "rect",
            class_="hit",
            x=percent(x - 0.5 / count),
            width=percent(1 / count),
            y=0,
            height=_HEIGHT,
        ),
        element(
            "circle",
            class_=kind,
            cx=percent(x),
            cy=top,
            r=radius,
        ),
    )


def _labels(
    runs: list[_Run], jump: str | None, suggested: AbstractSet[str]
) -> tuple[list[Element], int]:
    """Names of groups, as many as have room, and the pixels that they need below the plot."""

    def rank(run: _Run) -> tuple[bool, bool, float]:
        return run.group != jump, run.group not in suggested, run.start - run.end

    ranked = sorted(runs, key=rank)
    placed: list[tuple[_Run, bool]] = []
    for apart, wide in ((_APART, False), (_APART_WIDE, True)):
        for run in ranked:
            if all(abs(run.middle - other.middle) >= apart for other, _ in placed):
                placed.append((run, wide))
    longest = max((len(_short(run.group)) for run, _ in placed), default=0)
    labels = [_label(run, wide, run.group == jump) for run, wide in placed]
    return labels, round(12 + _CHARACTER_PX * longest)


def _label(run: _Run, wide: bool, jump: bool) -> Element:
    title = element("title", run.group)
    name = element("text", _short(run.group), title, class_="axis group", transform="rotate(-90)")
    # A turned text of its own system of coordinates: per cent do not go into a transform.
    return element(
        "svg",
        name,
        class_="label" + (" wide" if wide else "") + (" jump" if jump else ""),
        x=percent(run.middle),
        y=_HEIGHT + 8,
        width=1,
        height=1,
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:9]}…{name[-12:]}"
