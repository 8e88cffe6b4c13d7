"""Which of the rewrites' equal forms is fastest here: measured on the FP32 graph, one option at a
time from the recipe's own forms, so that a dozen are tried and not every combination.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import numpy as np
import onnx_ir as ir

from sam_deploy.errors import CheckFailed
from sam_deploy.example import Example
from sam_deploy.exporter.lowered import lowered
from sam_deploy.exporter.tuning_cache import TuningCache
from sam_deploy.parity.latency import times_ms
from sam_deploy.progress import Progress
from sam_deploy.recipe import DEFAULT_TOLERANCES, Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime import OnnxRunner
from sam_deploy.tuning import Trial, TuningReport

BATCHES = (1, 8)  # of a free batch: alone, and many together
_LEAST_GAIN = 1.02  # below that the difference is within what repeated runs differ by
# What a form cannot be without, where the options refuse it beside the best so far.
_WITH = {"heads": {"aggregation": "dense"}, "linear": {"anchors": "none"}}
_ORDER = ("anchors", "aggregation", "projections", "heads", "linear")


@dataclass(frozen=True)
class _Form:
    rewrites: RewriteOptions
    runner: OnnxRunner


def tune(
    subject: Subject, recipe: Recipe, seconds: float, work: Path, progress: Progress
) -> TuningReport:
    """The fastest of the forms that were tried within `seconds`; one that has begun is finished.

    A form is lowered like every export, with its rules held in float64, and its outputs are held to
    the eager model's before its time counts. Files go to the folder `work` and from there.

    Raises:
        CheckFailed: the recipe's own forms do not compute what the model does.
        InputError: the network cannot become a static graph.
    """
    begun = time.monotonic()
    batches = [recipe.batch] if recipe.batch else list(BATCHES)
    start = recipe.rewrites
    examples = [_example(subject, batch) for batch in batches]
    with progress.stage("tune", sum(len(others) for _, others in _options())) as advance:
        graph = lowered(subject, recipe, Progress()).graph
        best = first = _Form(start, _runner(graph, work))
        _hold(first, examples)
        target = first.runner.backend
        cache = TuningCache.of(graph, target, batches, start)
        if (known := cache.read()) is not None:
            return msgspec.structs.replace(known, remembered=True)
        trials: list[Trial] = []
        complete = True
        for field, values in _options():
            for value in values:
                advance(1)
                form = _with(best.rewrites, field, value)
                if form is None or form in [start, *(trial.rewrites for trial in trials)]:
                    continue
                if time.monotonic() - begun > seconds:
                    complete = False
                    continue
                trial, made = _tried(form, best, subject, recipe, examples, work)
                trials.append(trial)
                if made is not None and trial.ratio is not None and trial.ratio >= _LEAST_GAIN:
                    best = made
        # A lucky round may have chosen it: what is kept must win once more, against the start.
        ratio = 1.0 if best is first else _ratio(best, first, examples)
        if ratio < _LEAST_GAIN:
            best, ratio = first, 1.0
    report = TuningReport(
        target=target,
        batches=batches,
        start=start,
        chosen=best.rewrites,
        ratio=round(ratio, 3),
        trials=trials,
        complete=complete,
    )
    if complete:
        cache.write(report)
    return report


def _options() -> Iterator[tuple[str, Sequence[str]]]:
    hints = get_type_hints(RewriteOptions)
    for field in _ORDER:
        yield field, get_args(hints[field])


def _with(forms: RewriteOptions, field: str, value: str) -> RewriteOptions | None:
    """`forms` with another `value`, and with what that needs; None where nothing helps."""
    for needed in ({}, _WITH.get(field, {})):
        with suppress(ValueError):
            return RewriteOptions(**{**msgspec.to_builtins(forms), **needed, field: value})
    return None


def _tried(
    form: RewriteOptions,
    best: _Form,
    subject: Subject,
    recipe: Recipe,
    examples: Sequence[Example],
    work: Path,
) -> tuple[Trial, _Form | None]:
    asked = msgspec.structs.replace(recipe, rewrites=form)
    try:
        made = _Form(form, _runner(lowered(subject, asked, Progress()).graph, work))
        _hold(made, examples)
    except CheckFailed as failure:  # of this form alone: the others are no worse for it
        return Trial(rewrites=form, ratio=None, refused=str(failure)), None
    return Trial(rewrites=form, ratio=round(_ratio(made, best, examples), 3)), made


def _runner(graph: ir.Model, work: Path) -> OnnxRunner:
    path = work / "form.onnx"
    ir.save(graph, path)
    try:
        # Its threads sleep while they wait: the other form's want the cores.
        return OnnxRunner(path, spinning=False)
    finally:
        path.unlink()


def _example(subject: Subject, batch: int) -> Example:
    inputs = {
        name: np.resize(array, (batch, *array.shape[1:]))
        for name, array in subject.examples().items()
    }
    return Example(inputs, subject.run(inputs))


def _hold(form: _Form, examples: Sequence[Example]) -> None:
    for example in examples:
        outputs = form.runner.run(_as_declared(form, example.inputs))
        problem = example.problem(outputs, DEFAULT_TOLERANCES["fp32"], slack=1.0)
        if problem is not None:
            raise CheckFailed(
                f"the form {' '.join(msgspec.to_builtins(form.rewrites).values())} does not "
                f"compute what PyTorch does: {problem}. This is a bug: please report it."
            )


def _ratio(one: _Form, other: _Form, examples: Sequence[Example]) -> float:
    """How many times as fast `one` is: by medians, all batch sizes alike."""
    ratios = []
    for example in examples:
        inputs = _as_declared(one, example.inputs)
        times = times_ms(partial(one.runner.run, inputs), partial(other.runner.run, inputs))
        ratios.append(statistics.median(b / a for a, b in zip(*times, strict=True)))
    return math.exp(statistics.mean(map(math.log, ratios)))


def _as_declared(form: _Form, inputs: Mapping[str, Array]) -> Arrays:
    return {one.name: np.asarray(inputs[one.name], one.dtype) for one in form.runner.inputs}
