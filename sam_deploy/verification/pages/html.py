"""The page of a verification: one file that asks for nothing else and runs no script."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from string import Template
from xml.etree.ElementTree import Element

import msgspec

from sam_deploy.verification.pages._artefact import artefact_section
from sam_deploy.verification.pages._elements import element, written
from sam_deploy.verification.pages._layers import layers_section
from sam_deploy.verification.pages._overview import anchor, overview
from sam_deploy.verification.pages._summary import failures_first, reasons, speed, summary
from sam_deploy.verification.result import ParityResult


def html_page(result: ParityResult) -> str:
    """What is wrong, then what did not run, then everything that was found.

    It is to be written as UTF-8.
    """
    verdict = "passed" if result.passed else "FAILED"
    title = element("title", f"{verdict}: parity of {result.name}")
    page = (files("sam_deploy.verification.pages") / "page.html").read_text(encoding="utf-8")
    main = element("main", *_sections(result))
    return Template(page).substitute(title=written(title, "html"), main=written(main, "html"))


def _sections(result: ParityResult) -> Iterator[Element]:
    yield _verdict(result)
    if result.notes:
        notes = (element("li", note) for note in result.notes)
        yield element("section", element("h2", "Notes"), element("ul", *notes))
    yield overview(result)
    for number, artefact in enumerate(failures_first(result.artefacts)):
        yield artefact_section(artefact, anchor(number))
    yield layers_section(result.layers, result.tolerances.relative_rms)
    if result.latency is not None:
        yield element("section", element("h2", "Speed"), element("p", speed(result.latency)))
    yield _provenance(result)


def _verdict(result: ParityResult) -> Element:
    why = [element("li", reason) for reason in reasons(result)]
    missed = len(result.skipped) + sum(check.passed is None for check in result.checks)
    not_run = element("span", f", {missed} not run", class_="not-run") if missed else None
    subject = (
        f"{result.model} in {result.precision.upper()} against PyTorch in FP32 on "
        f"{result.samples} samples: {result.data}"
    )
    return element(
        "header",
        element("p", "Passed" if result.passed else "FAILED", not_run, class_="verdict"),
        element("h1", result.name),
        element("p", subject, class_="subject"),
        element("p", summary(result)),
        element("ul", *why, class_="why") if why else None,
        class_="passed" if result.passed else "failed",
    )


def _provenance(result: ParityResult) -> Element:
    compared = {artefact.parity.data_sha256 for artefact in result.artefacts if artefact.parity}
    facts = {
        "bundle": result.bundle,
        "model": f"{result.model}, {result.precision.upper()}",
        "weights, SHA-256": result.weights_sha256,
        "data": result.data,
        "samples": f"{result.samples}, {'labelled' if result.labelled else 'without labels'}",
        "samples, SHA-256": ", ".join(sorted(compared)) or "none were compared",
    }
    limits = msgspec.to_builtins(result.tolerances)
    allowed = {name.replace("_", " "): f"{limit:g}" for name, limit in limits.items()}
    return element(
        "section",
        element("h2", "What was verified"),
        _facts(facts),
        element("h2", "Tolerances"),
        _facts(allowed),
    )


def _facts(facts: dict[str, str]) -> Element:
    pairs = (part for n, v in facts.items() for part in (element("dt", n), element("dd", v)))
    return element("dl", *pairs)
