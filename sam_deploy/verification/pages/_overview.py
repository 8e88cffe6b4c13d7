"""What was to be run and looked at, and what came of it: wrong first, then not run, then passed."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._elements import Content, element, table
from sam_deploy.verification.pages._figures import judged
from sam_deploy.verification.pages._marks import mark
from sam_deploy.verification.pages._summary import (
    ORDER,
    Verdict,
    failures_first,
    of_artefact,
    of_check,
)
from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.result import ArtefactResult, ParityResult

_Row = tuple[Verdict, Content, Content]


def anchor(number: int) -> str:
    """The name of an artefact's section, by its place among `failures_first`."""
    return f"artefact-{number}"


def overview(result: ParityResult) -> Element:
    """Two tables, of artefacts and of checks."""
    artefacts: list[_Row] = [
        (of_artefact(artefact), _link(artefact, number), _found(artefact))
        for number, artefact in enumerate(failures_first(result.artefacts))
    ]
    artefacts += [("not run", f"{s.artefact} on {s.backend}", s.reason) for s in result.skipped]
    checks: list[_Row] = [(of_check(check), check.name, check.detail) for check in result.checks]
    return element(
        "section",
        element("h2", "Artefacts"),
        _table("artefact", artefacts) if artefacts else element("p", "There are none."),
        element("h2", "Checks"),
        _table("check", checks) if checks else element("p", "There are none."),
    )


def _table(what: str, rows: list[_Row]) -> Element:
    ordered = sorted(rows, key=lambda row: ORDER[row[0]])
    cells = [[mark(verdict), name, found] for verdict, name, found in ordered]
    return table(["verdict", what, "found"], cells, "blocks overview")


def _link(artefact: ArtefactResult, number: int) -> Element:
    return element("a", f"{artefact.artefact} on {artefact.backend}", href=f"#{anchor(number)}")


def _found(artefact: ArtefactResult) -> str:
    if artefact.parity is None:
        return "could not be compared"
    found = counted(artefact.parity.samples, "sample")
    if artefact.failures:
        return f"{found}; {counted(len(artefact.failures), 'reason')} above"
    figures = judged(artefact)
    used = [
        figure.used
        for group in (*figures.outputs, figures.accuracy, *figures.batches)
        for figure in group
        if figure.used is not None
    ]
    return found + (f"; no figure takes more than {max(used):.0%} of its limit" if used else "")
