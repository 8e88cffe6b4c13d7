"""Which of the rewrites' equal forms is fastest here: measured in the bundle's precision on every
runtime for CPUs, one option at a time from the recipe's own forms, so that a few are tried and not
every combination.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

import msgspec

from sam_deploy.errors import CheckFailed, MachineError, SamDeployError
from sam_deploy.exporter.lowered import Lowered
from sam_deploy.exporter.notes import Notes
from sam_deploy.exporter.timed_form import Forms, Lower, TimedForm, ratio_of
from sam_deploy.exporter.tuning_cache import TuningCache
from sam_deploy.latency import LEAST_GAIN
from sam_deploy.parity import Samples
from sam_deploy.progress import Advance
from sam_deploy.recipe import QUANTIZED, Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.runtime.faster import OPENVINO_GAIN
from sam_deploy.runtime.onnx_runner import CPU
from sam_deploy.runtime.openvino import OPENVINO, openvino_lacks
from sam_deploy.tuning import Trial, TuningReport

BATCHES = (1, 8)  # of a free batch: alone, and many together
# What a form cannot be without, where the options refuse it beside the best so far.
_WITH = {"heads": {"aggregation": "dense"}, "linear": {"anchors": "none"}}
_ORDER = ("anchors", "aggregation", "projections", "heads", "linear")


class Tuned(NamedTuple):
    """What was chosen and why, and the graph that has it."""

    report: TuningReport
    lowered: Lowered


class Found(NamedTuple):
    """What the search on one runtime found: `ratio` is the best's over the recipe's own forms."""

    provider: str
    best: TimedForm
    ratio: float
    trials: list[Trial]
    complete: bool


def tune(
    lower: Lower,
    subject: Subject,
    recipe: Recipe,
    calibration: Samples | None,
    seconds: float,
    work: Path,
    notes: Notes,
) -> Tuned:
    """The fastest of the forms that were tried within `seconds`; one that has begun is finished.

    `lower` makes the graph of a form. `calibration` are the samples of a recipe that quantizes.
    Files go to the folder `work` and from there.

    Raises:
        CheckFailed: the recipe's own forms do not compute what the model does.
        InputError: the network cannot become a static graph.
        PrecisionError: there is nothing to quantize.
    """
    until = time.monotonic() + seconds
    batches = [recipe.batch] if recipe.batch else list(BATCHES)
    start = recipe.rewrites
    providers = [CPU] if openvino_lacks() else [CPU, OPENVINO]
    notes.progress.note(f"the equal forms are tried for {seconds:g} s at most")
    steps = len(providers) * sum(len(values) for _, values in _options())
    with notes.progress.stage("tune", steps) as advance:
        lowered = lower(start)
        cache = TuningCache.of(lowered, recipe, batches, providers)
        if (known := cache.read()) is not None:
            report = msgspec.structs.replace(known, remembered=True)
            notes.give(_slower_than_untouched(report, recipe))
            return Tuned(report, lowered if known.chosen == start else lower(known.chosen))
        forms = Forms(lower, subject, recipe, calibration, batches, work)
        forms.add(start, lowered)
        fastest = _search(forms, CPU, forms.on(CPU, start), until, advance)
        found = [fastest]
        if OPENVINO in providers and time.monotonic() < until:
            try:
                other = _search(forms, OPENVINO, forms.on(OPENVINO, start), until, advance)
                found.append(other)
                # As `load` chooses between the two.
                ratio = ratio_of(other.best.runner, fastest.best.runner, forms.examples[:1])
                fastest = other if ratio >= OPENVINO_GAIN else fastest
            except (CheckFailed, MachineError) as failure:
                notes.give([f"the forms are not tried on OpenVINO: {failure}"])
        untouched = None
        if time.monotonic() < until:
            untouched = forms.untouched(fastest.provider)
        over = None
        if untouched is not None:
            over = round(ratio_of(fastest.best.runner, untouched, forms.examples), 3)
        forms.close()
        chosen = fastest.best.rewrites
        if chosen != start:
            lowered = lower(chosen)
    report = TuningReport(
        target=fastest.best.runner.backend,
        batches=batches,
        start=start,
        chosen=chosen,
        ratio=round(fastest.ratio, 3),
        over_untouched=over,
        trials=[trial for one in found for trial in one.trials],
        complete=len(found) == len(providers) and all(one.complete for one in found),
    )
    notes.give(_slower_than_untouched(report, recipe))
    if report.complete:
        cache.write(report)
    return Tuned(report, lowered)


def _search(forms: Forms, provider: str, first: TimedForm, until: float, advance: Advance) -> Found:
    """The fastest form on one runtime, one option at a time from `first`."""
    best, complete = first, True
    trials: list[Trial] = []
    for field, values in _options():
        for value in values:
            form = _with(best.rewrites, field, value)
            known = [first.rewrites, *(trial.rewrites for trial in trials)]
            if form is not None and form not in known:
                if time.monotonic() < until:
                    best, trial = _tried(form, best, forms, provider)
                    trials.append(trial)
                else:
                    complete = False
            advance(1)
    # A lucky round may have chosen it: what is kept must win once more, against the start.
    ratio = 1.0 if best is first else ratio_of(best.runner, first.runner, forms.examples)
    if ratio < LEAST_GAIN:
        best, ratio = first, 1.0
    return Found(provider, best, ratio, trials, complete)


def _tried(
    form: RewriteOptions, best: TimedForm, forms: Forms, provider: str
) -> tuple[TimedForm, Trial]:
    """The better of the two, and how `form` fared."""
    target = best.runner.backend
    try:
        made = forms.on(provider, form)
        ratio = ratio_of(made.runner, best.runner, forms.examples)
    except SamDeployError as failure:  # of this form: the others are no worse for it
        return best, Trial(target=target, rewrites=form, ratio=None, refused=str(failure))
    trial = Trial(target=target, rewrites=form, ratio=round(ratio, 3))
    return made if ratio >= LEAST_GAIN else best, trial


def _slower_than_untouched(report: TuningReport, recipe: Recipe) -> list[str]:
    over = report.over_untouched
    if over is None or over * LEAST_GAIN >= 1 or recipe.precision in QUANTIZED:
        return []  # of what is quantized the verdict says more
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
