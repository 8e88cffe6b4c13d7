"""Batches of different samples: whether every slot gives its own sample's result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree.ElementTree import Element

from sam_deploy.parity.judge import Figure
from sam_deploy.parity_report import BatchParity
from sam_deploy.verification.pages._elements import Content, element, table
from sam_deploy.verification.pages._figures import allowed
from sam_deploy.verification.pages._marks import mark
from sam_deploy.verification.pages._svg import percent

_HEIGHT = 32


def batch_table(batches: Iterable[tuple[BatchParity, list[Figure]]]) -> Element:
    """A row for each size, with the error of every slot as a bar."""
    columns = ["", "every slot", "figure", "#found", "#allowed", "verdict"]
    rows: list[list[Content]] = []
    for batch, figures in batches:
        for first, figure in zip((True, False), figures, strict=True):
            size = f"batch of {batch.size}" if first else ""
            plot = _slots(batch, figure.limit) if first else None
            verdict = mark("FAILED" if figure.reason else "passed")
            rows.append([size, plot, figure.what, figure.shown, allowed(figure), verdict])
    return table(columns, rows, "blocks batches")


def _slots(batch: BatchParity, limit: float) -> Element:
    """Bars, of which one that reaches the line takes all that is allowed."""
    finite = [rms for rms in batch.slots_rms if math.isfinite(rms)]
    top = 1.1 * max([limit, *finite])
    count = len(batch.slots_rms)
    bars = []
    for slot, rms in enumerate(batch.slots_rms):
        height = max(_HEIGHT * (rms / top if math.isfinite(rms) else 1), 1)
        bars.append(
            element(
                "rect",
                element("title", f"slot {slot}: {rms:.2e}"),
                class_=None if rms <= limit else "failed",
                x=percent((slot + 0.1) / count),
                width=percent(0.8 / count),
                y=_HEIGHT - height,
                height=height,
            )
        )
    y = _HEIGHT * (1 - limit / top)
    line = element("line", class_="limit", x1="0", x2="100%", y1=y, y2=y)
    label = f"Relative RMS of {count} slots"
    return element("svg", *bars, line, class_="slots", role="img", aria_label=label)
