"""Accuracy on labelled samples, with the interval that holds the true drop."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from sam_deploy.parity_report import Accuracy
from sam_deploy.recipe import Tolerances
from sam_deploy.verification.pages._elements import Content, element, table
from sam_deploy.verification.pages._svg import percent

_HEIGHT = 18


def accuracy_table(accuracy: Accuracy, limits: Tolerances) -> Element:
    """PyTorch's and the artefact's, and the drop as a number and as a picture."""
    tops = (
        ("top-1", accuracy.reference_top1, accuracy.top1, accuracy.top1_drop, limits.top1_drop,
         accuracy.top1_interval),
        ("top-5", accuracy.reference_top5, accuracy.top5, accuracy.top5_drop, limits.top5_drop,
         accuracy.top5_interval),
    )  # fmt: skip
    rows: list[list[Content]] = []
    for top, theirs, ours, drop, limit, interval in tops:
        if theirs is not None and ours is not None and drop is not None and interval is not None:
            low, high = interval
            span = f"{low:.2f} to {high:.2f}"
            plot = _interval(low, drop, high, limit)
            rows.append([top, f"{theirs:.2f} %", f"{ours:.2f} %", f"{drop:.2f}", span, plot])
    figures = ("#PyTorch", "#artefact", "#drop, points", "#95 % interval")
    return table(["", *figures, "solid: no drop; dashed: allowed"], rows, "blocks accuracy")


def _interval(low: float, drop: float, high: float, limit: float) -> Element:
    """The drop as a dot on its interval; lines where there is none and where it is too much."""
    start, end = min(low, 0.0), max(high, limit)
    room = (end - start) or 1.0

    def at(value: float) -> str:
        return percent(0.03 + 0.94 * min(max((value - start) / room, 0.0), 1.0))

    middle = _HEIGHT / 2
    found = f"drop {drop:.2f} points, 95 %: {low:.2f} to {high:.2f}; allowed {limit:g}"
    return element(
        "svg",
        element("title", found),
        element("line", class_="zero", x1=at(0), x2=at(0), y1=0, y2=_HEIGHT),
        element("line", class_="limit", x1=at(limit), x2=at(limit), y1=0, y2=_HEIGHT),
        element("line", class_="span", x1=at(low), x2=at(high), y1=middle, y2=middle),
        element("circle", class_="dot", cx=at(drop), cy=middle, r=4),
        class_="interval",
        role="img",
    )
