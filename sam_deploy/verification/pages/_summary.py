"""The verdict in words: what passed, what failed, and what was not looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.result import ArtefactResult, Check, Latency, ParityResult

Verdict = Literal["passed", "FAILED", "not run"]
ORDER: dict[Verdict, int] = {"FAILED": 0, "not run": 1, "passed": 2}


def reasons(result: ParityResult) -> list[str]:
    """Why it did not pass; never empty where it did not."""
    if result.passed or result.failures:
        return result.failures
    return ["it did not pass, and the result does not say why"]


def of_artefact(artefact: ArtefactResult) -> Verdict:
    """A comparison that was void has failed."""
    return "FAILED" if artefact.failures or artefact.parity is None else "passed"


def of_check(check: Check) -> Verdict:
    """One that could not be looked at did not run."""
    return "not run" if check.passed is None else "passed" if check.passed else "FAILED"


def failures_first(artefacts: Sequence[ArtefactResult]) -> list[ArtefactResult]:
    """The artefacts, what is wrong at the top."""
    return sorted(artefacts, key=lambda artefact: ORDER[of_artefact(artefact)])


def summary(result: ParityResult) -> str:
    """What was run and what was not, in a sentence or two."""
    artefacts: list[Verdict] = [of_artefact(artefact) for artefact in result.artefacts]
    artefacts += ["not run"] * len(result.skipped)
    checks = [of_check(check) for check in result.checks]
    parts = [_tally(artefacts, "artefact", "did not run here")]
    if checks:
        parts.append(_tally(checks, "check", "could not be looked at"))
    return "; ".join(parts) + "."


def speed(latency: Latency) -> str:
    """How fast the bundle is beside PyTorch."""
    return (
        f"{latency.ratio:.2f} times as fast as eager PyTorch: {latency.bundle_ms:.3g} ms against "
        f"{latency.eager_ms:.3g} ms, ONNX Runtime on one thread of this CPU."
    )


def _tally(verdicts: list[Verdict], what: str, missed: str) -> str:
    if not verdicts:
        return f"no {what}"
    failed, not_run = verdicts.count("FAILED"), verdicts.count("not run")
    parts = [f"{verdicts.count('passed')} of {counted(len(verdicts), what)} passed"]
    if failed:
        parts.append(f"{failed} FAILED")
    if not_run:
        parts.append(f"{not_run} {missed}")
    return ", ".join(parts)
