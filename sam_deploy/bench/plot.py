"""The result of a benchmark as an SVG: a bar for each contestant, at every batch size."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sam_deploy.bench.result import BatchTiming, BenchResult, Entry, by_batch

_WIDTH_PX, _LABEL_PX, _BAR_PX, _ROW_PX, _HEAD_PX = 900, 330, 400, 22, 44
_FILL = {"ours": "#2a78c5", "peer": "#9aa3ad"}


def bench_svg(result: BenchResult) -> str:
    """The median times, the fastest first; the thin line is the distance between quartiles."""
    sections = by_batch(result.entries)
    height = _HEAD_PX + sum(_HEAD_PX + _ROW_PX * len(timed) for timed in sections)
    box = f"0 0 {_WIDTH_PX} {height}"
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=box, width=str(_WIDTH_PX))
    svg.set("font-family", "system-ui, sans-serif")
    svg.set("font-size", "13")
    SubElement(svg, "rect", width="100%", height="100%", fill="#ffffff")
    where = ", ".join(dict.fromkeys(result.machine.values()))
    _text(svg, 12, 24, f"{where}; {result.threads} threads, {result.rounds} rounds", bold=False)
    y = _HEAD_PX
    for timed in sections:
        most = max(timing.median_ms + timing.spread_ms / 2 for timing, _ in timed)
        _text(svg, 12, y + 24, f"batch {timed[0][0].batch}, ms", bold=True)
        y += _HEAD_PX
        for timing, entry in timed:
            _bar(svg, y, timing, entry, _BAR_PX / most)
            y += _ROW_PX
    indent(svg)
    return tostring(svg, encoding="unicode") + "\n"


def _bar(svg: Element, y: int, timing: BatchTiming, entry: Entry, px_per_ms: float) -> None:
    middle = y + _ROW_PX // 2
    length = timing.median_ms * px_per_ms
    half = timing.spread_ms * px_per_ms / 2
    SubElement(
        svg, "rect", x=str(_LABEL_PX), y=str(y + 3), width=f"{length:.2f}",
        height=str(_ROW_PX - 6), fill=_FILL[entry.side],
    )  # fmt: skip
    SubElement(
        svg, "line", x1=f"{_LABEL_PX + max(length - half, 0):.2f}", y1=str(middle),
        x2=f"{_LABEL_PX + length + half:.2f}", y2=str(middle), stroke="#1b2733",
    )  # fmt: skip
    _text(svg, 12, middle + 4, entry.name, bold=entry.side == "ours")
    said = f"{timing.median_ms:.1f}   error {timing.relative_rms:.0e}"
    _text(svg, _LABEL_PX + int(length + half) + 8, middle + 4, said, bold=False)


def _text(svg: Element, x: int, y: int, text: str, *, bold: bool) -> None:
    label = SubElement(svg, "text", x=str(x), y=str(y), fill="#1b2733")
    label.text = text
    if bold:
        label.set("font-weight", "600")
