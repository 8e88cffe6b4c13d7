"""JUnit XML, as GitLab, Jenkins and GitHub's actions for test reports read it."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, indent

from sam_deploy.parity.judge import Figure
from sam_deploy.parity_report import ParityReport
from sam_deploy.verification.pages._elements import element, written
from sam_deploy.verification.pages._figures import Judged, allowed, judged
from sam_deploy.verification.pages._summary import reasons
from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.result import ArtefactResult, Check, ParityResult, Skipped


def junit_xml(result: ParityResult) -> str:
    """One suite an artefact on a backend, with a case for every figure that is judged, and one of
    the checks. It is to be written as UTF-8.

    What did not run is skipped. Every reason of `result.failures` stands in a failure, as it is.
    """
    suites = [
        *(_artefact(artefact) for artefact in result.artefacts),
        *(_skipped(skipped) for skipped in result.skipped),
        _checks(result),
    ]
    root = element("testsuites", *suites, name=f"parity of {result.name}", **_counts(suites))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + written(root, "xml") + "\n"


def _artefact(artefact: ArtefactResult) -> Element:
    where, found = f"{artefact.artefact} on {artefact.backend}", judged(artefact)
    parity = artefact.parity
    if parity is None:
        beside = found.beside or ["it could not be compared"]
        return _suite(where, [_case(where, "comparison", failures=beside)])
    samples = counted(parity.samples, "sample")
    compared = _case(where, "comparison", samples, failures=found.beside)
    return _suite(where, [compared, *_figures(where, parity, found)])


def _figures(where: str, parity: ParityReport, found: Judged) -> list[Element]:
    named: list[tuple[str, list[Figure]]] = [
        *zip((output.name for output in parity.outputs), found.outputs, strict=True),
        ("accuracy", found.accuracy),
        *zip((f"batch of {b.size}" for b in parity.batches), found.batches, strict=True),
    ]
    return [
        _case(
            where,
            f"{name}: {figure.what}",
            f"{figure.shown} (allowed {allowed(figure)})",
            failures=[figure.reason] if figure.reason else [],
        )
        for name, figures in named
        for figure in figures
    ]


def _skipped(skipped: Skipped) -> Element:
    where = f"{skipped.artefact} on {skipped.backend}"
    return _suite(where, [_case(where, "comparison", skipped=skipped.reason)])


def _checks(result: ParityResult) -> Element:
    cases = [_check(check) for check in result.checks]
    told = sum(check.passed is False for check in result.checks)
    told += sum(len(artefact.failures) for artefact in result.artefacts)
    if beside := reasons(result)[told:]:  # of the whole: that nothing ran
        cases.append(_case("", "verdict", failures=beside))
    return _suite("checks", cases)


def _check(check: Check) -> Element:
    if check.passed is None:
        return _case("", check.name, skipped=check.detail)
    if not check.passed:
        return _case("", check.name, failures=[f"{check.name}: {check.detail}"])
    return _case("", check.name, check.detail)


def _case(
    where: str,
    name: str,
    found: str = "",
    *,
    failures: Sequence[str] = (),
    skipped: str | None = None,
) -> Element:
    """A case; `found` is shown of one that passed, too."""
    outcome = None
    if failures:
        # Some readers show the message and others the text: both say all there is to say.
        text = "\n".join(f"{where}: {reason}" if where else reason for reason in failures)
        outcome = element("failure", text, message="; ".join(failures), type="ParityFailure")
    elif skipped is not None:
        outcome = element("skipped", message=skipped)
    shown = element("system-out", found) if found else None
    return element("testcase", outcome, shown, name=name, classname=where or "checks")


def _suite(name: str, cases: list[Element]) -> Element:
    made = element("testsuite", *cases, name=name)
    for key, count in _counts([made]).items():
        made.set(key, str(count))
    return made


def _counts(suites: list[Element]) -> dict[str, int]:
    paths = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    found = {key: sum(len(s.findall(path)) for s in suites) for key, path in paths.items()}
    return {**found, "errors": 0}
