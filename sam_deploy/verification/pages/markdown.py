"""Markdown for a GitHub job summary or a comment on a merge request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sam_deploy.parity.judge import Figure
from sam_deploy.verification.pages._figures import allowed, judged
from sam_deploy.verification.pages._gfm import bullets, fenced, plain, table
from sam_deploy.verification.pages._summary import failures_first, reasons, speed, summary
from sam_deploy.verification.pages._text import counted
from sam_deploy.verification.result import ArtefactResult, LayersReport, ParityResult

_DISTANCES = ("relative RMS", "largest error", "cosine")
_SUGGESTIONS = 3
_DECISIONS = ("top-1 agreement", "equal elements")


def markdown(result: ParityResult) -> str:
    """The verdict, the reasons, the figures with their limits, and what did not run.

    It is to be written as UTF-8.
    """
    artefacts = failures_first(result.artefacts)
    figures = table(
        ["artefact", "output", *_DISTANCES, "same decisions", "verdict"],
        [row for artefact in artefacts for row in _figures(artefact)],
    )
    accuracy = table(
        ["artefact", "accuracy", "PyTorch, %", "artefact, %", "drop, points", "95 % interval"],
        [row for artefact in artefacts for row in _accuracy(artefact)],
    )
    batches = table(
        ["artefact", "batch", "worst slot", "other neighbours"],
        [row for artefact in artefacts for row in _batches(artefact)],
    )
    failed = [
        [plain(check.name), plain(check.detail)] for check in result.checks if check.passed is False
    ]
    parts = [
        f"## Parity of {plain(result.name)}: {'passed' if result.passed else 'FAILED'}",
        plain(summary(result)),
        bullets(reasons(result)),
        table(["check that FAILED", "found"], failed),
        table(["not run", "why"], list(_not_run(result))),
        figures,
        accuracy,
        batches,
        *_layers(result.layers),
        "" if result.latency is None else plain(speed(result.latency)),
        "Notes:" if result.notes else "",
        bullets(result.notes),
        plain(
            f"{result.model} in {result.precision.upper()} against PyTorch in FP32 on "
            f"{result.samples} samples: {result.data}. Weights {result.weights_sha256[:16]}."
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(artefact: ArtefactResult) -> Iterator[list[str]]:
    where = _where(artefact)
    if artefact.parity is None:
        yield [where, "not compared", "", "", "", "", "**FAILED**"]
        return
    for output, figures in zip(artefact.parity.outputs, judged(artefact).outputs, strict=True):
        cells = [_cell(figures, what) for what in _DISTANCES]
        verdict = "**FAILED**" if any(figure.reason for figure in figures) else "passed"
        yield [where, plain(output.name), *cells, _cell(figures, *_DECISIONS), verdict]


def _accuracy(artefact: ArtefactResult) -> Iterator[list[str]]:
    if artefact.parity is None or artefact.parity.accuracy is None:
        return
    accuracy = artefact.parity.accuracy
    figures = judged(artefact).accuracy
    for top, theirs, ours, interval in (
        ("top-1", accuracy.reference_top1, accuracy.top1, accuracy.top1_interval),
        ("top-5", accuracy.reference_top5, accuracy.top5, accuracy.top5_interval),
    ):
        if ours is not None and theirs is not None and interval is not None:
            own = _cell(figures, f"{top} accuracy") or f"{ours:.2f}"
            drop = _cell(figures, f"{top} drop")
            span = f"{interval[0]:.2f} to {interval[1]:.2f}"
            yield [_where(artefact), top, f"{theirs:.2f}", own, drop, span]


def _batches(artefact: ArtefactResult) -> Iterator[list[str]]:
    if artefact.parity is not None:
        for batch, figures in zip(artefact.parity.batches, judged(artefact).batches, strict=True):
            cells = [_cell(figures, what) for what in ("worst slot", "other neighbours")]
            yield [_where(artefact), str(batch.size), *cells]


def _not_run(result: ParityResult) -> Iterator[list[str]]:
    for skipped in result.skipped:
        yield [plain(f"{skipped.artefact} on {skipped.backend}"), plain(skipped.reason)]
    for check in result.checks:
        if check.passed is None:
            yield [plain(f"check: {check.name}"), plain(check.detail)]


def _layers(layers: LayersReport | None) -> Iterator[str]:
    if layers is None:
        return
    if layers.jump is not None:
        where = f"{layers.artefact} on {layers.backend}"
        yield plain(f"Layers of {where}: the error jumps at {layers.jump}.")
    for suggestion in layers.suggestions[:_SUGGESTIONS]:
        yield plain(
            f"{suggestion.group}: the error grows {suggestion.growth:.3g} times, to a relative RMS "
            f"of {suggestion.relative_rms:.1e}. To keep it in higher precision:"
        )
        yield fenced(suggestion.lines, "toml")
    if more := layers.suggestions[_SUGGESTIONS:]:
        yield f"{counted(len(more), 'suggestion')} more on the page."


def _cell(figures: Sequence[Figure], *whats: str) -> str:
    """The figure of that name with its limit, bold where it failed; '' where there is none."""
    for figure in figures:
        if figure.what in whats:
            shown = f"**{figure.shown}**" if figure.reason else figure.shown
            return f"{shown} ({allowed(figure)})"
    return ""


def _where(artefact: ArtefactResult) -> str:
    return plain(f"{artefact.artefact} on {artefact.backend}")
