"""An artefact on a backend: its figures against their limits, and what else was found."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from sam_deploy.parity.judge import Figure
from sam_deploy.parity_report import OutputParity, ParityReport
from sam_deploy.verification.pages._accuracy import accuracy_table
from sam_deploy.verification.pages._batches import batch_table
from sam_deploy.verification.pages._elements import Content, element, table
from sam_deploy.verification.pages._figures import Judged, allowed, judged
from sam_deploy.verification.pages._histogram import histogram_plot
from sam_deploy.verification.pages._marks import mark
from sam_deploy.verification.pages._summary import of_artefact
from sam_deploy.verification.pages._svg import bar
from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.pages._worst import flips, worst_samples
from sam_deploy.verification.result import ArtefactResult


def artefact_section(artefact: ArtefactResult, anchor: str) -> Element:
    """All that is known of it, what is wrong first."""
    name = f"{artefact.artefact} on {artefact.backend}"
    return element(
        "section",
        element("h2", name, " ", mark(of_artefact(artefact))),
        *_parts(artefact, name),
        id=anchor,
    )


def _parts(artefact: ArtefactResult, name: str) -> Iterator[Content]:
    if artefact.failures:
        yield element("ul", *(element("li", reason) for reason in artefact.failures), class_="why")
    if artefact.parity is None:
        yield element("p", "It could not be compared: there are no figures.")
    else:
        yield from _compared(artefact.parity, judged(artefact))
    if artefact.histogram is not None:
        caption = (
            "How many samples have which error: the RMS of the difference over the standard "
            "deviation of PyTorch's outputs on that sample."
        )
        plot = histogram_plot(name, artefact.histogram)
        yield element("h3", "Errors of the samples")
        yield element("figure", plot, element("figcaption", caption))
    if artefact.worst:
        flipped = sum(map(flips, artefact.worst))
        shown = counted(len(artefact.worst), "sample") + (f", {flipped} flipped" if flipped else "")
        yield element("h3", f"Furthest from PyTorch: {shown}")
        yield from worst_samples(artefact.worst)


def _compared(parity: ParityReport, found: Judged) -> Iterator[Content]:
    named = [
        *zip((output.name for output in parity.outputs), found.outputs, strict=True),
        ("accuracy", found.accuracy),
    ]
    columns = ["output", "figure", "#found", "#allowed", "of what is allowed", "verdict"]
    rows = [_row(name, figure) for name, figures in named for figure in figures]
    yield table(columns, rows, "blocks figures")
    if parity.unreadable:
        left_out = f"{counted(parity.unreadable, 'image')} could not be read and were left out."
        yield element("p", left_out, class_="warn")
    yield from (element("p", text) for output in parity.outputs for text in _flips(output))
    if parity.accuracy is not None:
        yield element("h3", f"Accuracy on {counted(parity.accuracy.samples, 'labelled sample')}")
        yield accuracy_table(parity.accuracy, parity.tolerances)
    if parity.batches:
        yield element("h3", "Batches of different samples")
        yield batch_table(zip(parity.batches, found.batches, strict=True))


def _row(where: str, figure: Figure) -> list[Content]:
    kind, used = ("failed" if figure.reason else "kept"), figure.used
    plot = None if used is None else bar(used, f"{used:.0%} of what is allowed", kind)
    verdict = mark("FAILED" if figure.reason else "passed")
    return [where, figure.what, figure.shown, allowed(figure), plot, verdict]


def _flips(output: OutputParity) -> Iterator[str]:
    if not output.flips:
        return
    text = f"{output.name}: {counted(output.flips, 'sample')} flipped to another first class."
    if output.flip_margin_mean is not None and output.flip_margin_max is not None:
        text += (
            f" PyTorch preferred its own by {output.flip_margin_mean:.2g} standard deviations "
            f"on average and {output.flip_margin_max:.2g} at most; near 0 it was a tie."
        )
    yield text
