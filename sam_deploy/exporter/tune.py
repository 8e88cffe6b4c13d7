"""Which of the rewrites' equal forms is fastest here: measured on the FP32 graph, one option at a
time from the recipe's own forms, so that a few are tried and not every combination.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

import msgspec

from sam_deploy.errors import CheckFailed
from sam_deploy.example import Example
from sam_deploy.exporter.lowered import Lowered
from sam_deploy.exporter.notes import Notes
from sam_deploy.exporter.timed_form import (
    TimedForm,
    example_of,
    ratio_of,
    timed_form,
    untouched_runner,
)
from sam_deploy.exporter.tuning_cache import TuningCache
from sam_deploy.latency import LEAST_GAIN
from sam_deploy.recipe import Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.tuning import Trial, TuningReport

BATCHES = (1, 8)  # of a free batch: alone, and many together
# What a form cannot be without, where the options refuse it beside the best so far.
_WITH = {"heads": {"aggregation": "dense"}, "linear": {"anchors": "none"}}
_ORDER = ("anchors", "aggregation", "projections", "heads", "linear")


Lower = Callable[[RewriteOptions], Lowered]


class Tuned(NamedTuple):
    """What was chosen and why, and the graph that has it."""

    report: TuningReport
    lowered: Lowered


def tune(
    lower: Lower, subject: Subject, recipe: Recipe, seconds: float, work: Path, notes: Notes
) -> Tuned:
    """The fastest of the forms that were tried within `seconds`; one that has begun is finished.

    `lower` makes the graph of a form, with its rules held in float64. Its outputs are held to the
    eager model's before its time counts. Files go to the folder `work` and from there.

    Raises:
        CheckFailed: the recipe's own forms do not compute what the model does.
        InputError: the network cannot become a static graph.
    """
    until = time.monotonic() + seconds
    batches = [recipe.batch] if recipe.batch else list(BATCHES)
    start = recipe.rewrites
    notes.progress.note(f"the equal forms are tried for {seconds:g} s at most")
    with notes.progress.stage("tune", sum(len(values) for _, values in _options())) as advance:
        lowered = lower(start)
        cache = TuningCache.of(lowered, batches, start)
        if (known := cache.read()) is not None:
            report = msgspec.structs.replace(known, remembered=True)
            notes.give(_slower_than_untouched(report))
            return Tuned(report, lowered if known.chosen == start else lower(known.chosen))
        examples = [example_of(subject, batch) for batch in batches]
        first = best = timed_form(start, lowered, examples, work)
        untouched = None
        if time.monotonic() < until:
            untouched = untouched_runner(subject, recipe.batch, examples, work)
        trials: list[Trial] = []
        complete = True
        for field, values in _options():
            for value in values:
                form = _with(best.rewrites, field, value)
                if form is not None and form not in [start, *(one.rewrites for one in trials)]:
                    if time.monotonic() < until:
                        best, trial = _tried(form, best, lower, examples, work)
                        trials.append(trial)
                    else:
                        complete = False
                advance(1)
        # A lucky round may have chosen it: what is kept must win once more, against the start.
        ratio = 1.0 if best is first else ratio_of(best.runner, first.runner, examples)
        if ratio < LEAST_GAIN:
            best, ratio = first, 1.0
        over = None if untouched is None else ratio_of(best.runner, untouched, examples)
    report = TuningReport(
        target=first.runner.backend,
        batches=batches,
        start=start,
        chosen=best.rewrites,
        ratio=round(ratio, 3),
        over_untouched=None if over is None else round(over, 3),
        trials=trials,
        complete=complete,
    )
    notes.give(_slower_than_untouched(report))
    if complete:
        cache.write(report)
    return Tuned(report, best.lowered)


def _slower_than_untouched(report: TuningReport) -> list[str]:
    over = report.over_untouched
    if over is None or over * LEAST_GAIN >= 1:
        return []
    return [
        f"no form is as fast here as the export of the untouched model ({over:.2f} times): "
        "the rewriting does not pay for this network on this machine"
    ]


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
    form: RewriteOptions, best: TimedForm, lower: Lower, examples: Sequence[Example], work: Path
) -> tuple[TimedForm, Trial]:
    """The better of the two, and how `form` fared."""
    try:
        made = timed_form(form, lower(form), examples, work)
    except CheckFailed as failure:  # of this form alone: the others are no worse for it
        return best, Trial(rewrites=form, ratio=None, refused=str(failure))
    ratio = ratio_of(made.runner, best.runner, examples)
    return made if ratio >= LEAST_GAIN else best, Trial(rewrites=form, ratio=round(ratio, 3))
