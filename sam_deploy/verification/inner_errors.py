"""The error behind every module: the artefact's inner values against what the reference's give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from sam_deploy.progress import Progress
from sam_deploy.reference import Subject
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.onnx_backends import AnyOnnxRunner, start_onnx
from sam_deploy.verification.groups import groups_of
from sam_deploy.verification.matching import Match, chunks
from sam_deploy.verification.result import LayerError
from sam_deploy.verification.spread import Spread
from sam_deploy.verification.values import SEEN, write_seen
from sam_deploy.verification.watching import run_watched

OUTPUT = "output "  # before the name of an output, where layers are listed: no path has a space
_CLEARLY = 0.5  # of the error itself


def inner_errors(
    runner: AnyOnnxRunner,
    artefact: ir.Model,
    subject: Subject,
    matches: Mapping[str, Match],
    batches: Sequence[Arrays],
    work: Path,
    progress: Progress,
) -> tuple[list[LayerError], list[str]]:
    """A figure for each of `matches`, and for outputs that no module ends with; and notes.

    `runner` runs the `artefact` as it is. As many values are held at once as `chunks` allows.
    Modules that give a constant are left out.
    """
    parts = list(chunks({module: match.bytes for module, match in matches.items()})) or [[]]
    usual = [_run(runner, batch) for batch in batches]
    outputs = [name for name, array in usual[0].items() if array.dtype.kind == "f"]
    inner = {module: Spread() for module in matches}
    whole, apart = ({name: Spread() for name in outputs} for _ in range(2))
    path = work / "seen.onnx"
    with progress.stage("layers", len(parts) * len(batches)) as advance:
        for part in parts:
            write_seen(artefact, {matches[module].value for module in part}, path)
            exposed = start_onnx(path, runner.provider)
            held = {module: matches[module] for module in part}
            for batch, plain in zip(batches, usual, strict=True):
                seen = _run(exposed, batch)
                expected = run_watched(subject, batch, _comparing(held, seen, inner))
                for name in outputs:
                    whole[name].update(plain[name], expected[name])
                    apart[name].update(seen[name], plain[name])
                advance(1)
    path.unlink()
    layers = _layers(inner, whole, matches, subject)
    return layers, [text for name in outputs if (text := _told(name, apart[name], whole[name]))]


def _comparing(
    matches: Mapping[str, Match], seen: Arrays, inner: Mapping[str, Spread]
) -> Callable[[str, Array], None]:
    def compare(module: str, array: Array) -> None:
        match = matches.get(module)
        if match is not None:
            actual = match.as_module(seen[match.value + SEEN], array.shape)
            inner[module].update(actual, array)

    return compare


def _layers(
    inner: Mapping[str, Spread],
    whole: Mapping[str, Spread],
    matches: Mapping[str, Match],
    subject: Subject,
) -> list[LayerError]:
    groups = groups_of(subject.module)
    kinds = {path: type(part).__name__ for path, part in subject.module.named_modules()}
    ends = {match.value for match in matches.values()}
    named = [(module, kinds[module], groups[module], spread) for module, spread in inner.items()]
    named += [
        (f"{OUTPUT}{name}", kinds[""], f"{OUTPUT}{name}", spread)
        for name, spread in whole.items()
        if name not in ends
    ]
    return [
        LayerError(module=module, kind=kind, group=group, relative_rms=spread.relative_rms)
        for module, kind, group, spread in named
        if spread.relative_rms is not None
    ]


def _told(output: str, apart: Spread, whole: Spread) -> str | None:
    differs, error = apart.relative_rms or 0.0, whole.relative_rms or 0.0
    if not differs > _CLEARLY * error > 0:
        return None
    return (
        f"ONNX Runtime computes otherwise once inner values are looked at: {output} differs by a "
        f"relative RMS of {differs:.1e}, its error is {error:.1e}. Take the layers' figures with "
        "care."
    )


def _run(runner: AnyOnnxRunner, batch: Arrays) -> Arrays:
    return runner.run({spec.name: batch[spec.name].astype(spec.dtype) for spec in runner.inputs})
