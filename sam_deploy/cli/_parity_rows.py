"""The result of a verification as rows of a table, the verdict first."""

from __future__ import annotations

from sam_deploy.cli._tables import Row, parity_rows_of
from sam_deploy.parity.judge import batch_figures
from sam_deploy.parity_report import BatchParity
from sam_deploy.recipe import Tolerances
from sam_deploy.verification.result import ArtefactResult, LayersReport, ParityResult, Skipped

_WORD = {True: "ok", False: "FAILED", None: "NOT LOOKED AT"}


def parity_rows(result: ParityResult) -> list[Row]:
    """Everything that decides, and what was not run."""
    return [
        ("verdict", "PASSED" if result.passed else "FAILED"),
        *[("failed", reason) for reason in result.failures],
        ("bundle", f"{result.bundle} ({result.model}, {result.precision})"),
        ("data", _data(result)),
        *[row for artefact in result.artefacts for row in _artefact(artefact)],
        *[("not run", _skipped(one)) for one in result.skipped],
        *[("check", f"{c.name}: {_WORD[c.passed]}, {c.detail}") for c in result.checks],
        *(_layers(result.layers, failed=not result.passed) if result.layers else []),
    ]


def _data(result: ParityResult) -> str:
    labels = "labelled" if result.labelled else "without labels"
    return f"{result.data}: {result.samples} samples, {labels}"


def _artefact(result: ArtefactResult) -> list[Row]:
    if result.parity is None:
        return [("parity", f"FAILED: {result.artefact} on {result.backend}")]
    rows = parity_rows_of(result.parity)
    rows += [("batch", _batch(one, result.parity.tolerances)) for one in result.parity.batches]
    for output in result.parity.outputs:
        if output.flips:
            rows.append(
                (
                    "flips",
                    f"{output.flips} first classes are others; PyTorch preferred its own by "
                    f"{output.flip_margin_mean:.1e} standard deviations on average, "
                    f"{output.flip_margin_max:.1e} at most",
                )
            )
    return rows


def _batch(found: BatchParity, limits: Tolerances) -> str:
    worst, neighbours = batch_figures(found, limits)
    return (
        f"of {found.size}: the farthest slot has a relative RMS of {worst.shown} (at most "
        f"{worst.limit:g}); another slot and other neighbours change {neighbours.shown} (at most "
        f"{neighbours.limit:g})"
    )


def _skipped(one: Skipped) -> str:
    return f"{one.artefact} on {one.backend}: {one.reason}"


def _layers(report: LayersReport, *, failed: bool) -> list[Row]:
    worst = sorted(report.layers, key=lambda layer: -layer.relative_rms)[:5]
    rows = [
        ("layers", f"{len(report.layers)} modules of {report.artefact} matched by name and value"),
        ("jump", report.jump or "none: the error grows evenly, or not at all"),
        *[("layer", f"{one.module} ({one.kind}): {one.relative_rms:.1e}") for one in worst],
    ]
    for one in report.suggestions[:5] if failed else []:
        lines = " ".join(one.lines.split("\n"))
        rows.append(("keep", f"{one.group}: {one.relative_rms:.1e} behind it; {lines}"))
    return rows
