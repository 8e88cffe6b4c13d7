"""Where in the network the error comes from: a curve, and what would keep it out."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._curve import curve_plot
from sam_deploy.verification.pages._elements import Content, element, table
from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.result import LayersReport, Suggestion

_FIRST = 3  # suggestions, the most useful ones


def layers_section(report: LayersReport | None, allowed: float) -> Element:
    """The curve, or how to get it. `allowed` is the relative RMS that the outputs may have."""
    if report is None:
        hint = element("p", "Not looked at. ", element("code", "sam-parity --layers"), " draws it.")
        parts: list[Content] = [hint]
    else:
        parts = list(_parts(report, allowed))
    return element("section", element("h2", "Where the error comes from"), *parts, id="layers")


def _parts(report: LayersReport, allowed: float) -> Iterator[Content]:
    samples = counted(report.samples, "sample")
    yield element("p", f"{report.artefact} on {report.backend}, {samples}.")
    if report.jump is None:
        yield element("p", "The error jumps nowhere.")
    else:
        yield element("p", "The error jumps at ", element("b", report.jump), ".", class_="warn")
    yield from (element("p", note) for note in report.notes)
    yield from map(_suggestion, report.suggestions[:_FIRST])
    if more := report.suggestions[_FIRST:]:
        summary = element("summary", f"{counted(len(more), 'suggestion')} more")
        yield element("details", summary, *map(_suggestion, more))
    if not report.layers:
        yield element("p", "No module's output stands in the artefact as it is in PyTorch.")
    else:
        caption = (
            "Relative RMS of every module's output, in the network's order; the bands are groups. "
            "Orange: where it jumps, and paler what is suggested for higher precision. "
            f"Dashed: what the outputs may have, {allowed:g}."
        )
        yield element("figure", curve_plot(report, allowed), element("figcaption", caption))
        yield _all(report)
    if report.unmatched:
        missing = counted(len(report.unmatched), "module")
        summary = element("summary", f"{missing} not in the curve: folded, merged, fused or scaled")
        yield element("details", summary, element("p", ", ".join(report.unmatched)))


def _suggestion(suggestion: Suggestion) -> Element:
    found = (
        f": the error grows {suggestion.growth:.3g} times, to {suggestion.relative_rms:.1e}. "
        "The recipe keeps it in higher precision with"
    )
    return element(
        "div",
        element("p", element("b", suggestion.group), found),
        element("pre", suggestion.lines.strip("\n")),
        class_="suggestion",
    )


def _all(report: LayersReport) -> Element:
    rows = [[m.module, m.kind, m.group, f"{m.relative_rms:.2e}"] for m in report.layers]
    listed = table(["module", "kind", "group", "#relative RMS"], rows, "blocks modules")
    return element("details", element("summary", f"All {len(rows)} modules"), listed)
