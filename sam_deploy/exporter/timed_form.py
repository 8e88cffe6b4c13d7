"""One of the rewrites' forms on ONNX Runtime's CPU provider, to be timed against another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from sam_deploy.errors import CheckFailed
from sam_deploy.example import Example
from sam_deploy.exporter.lowered import Lowered
from sam_deploy.latency import speed_ratio
from sam_deploy.lowering import onnx_from_module
from sam_deploy.lowering.batch import quiet
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.reference.subject import Subject
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.runtime import OnnxRunner


@dataclass(frozen=True)
class TimedForm:
    """A form whose FP32 graph computes what PyTorch does, ready to run."""

    rewrites: RewriteOptions
    lowered: Lowered
    runner: OnnxRunner


def timed_form(
    rewrites: RewriteOptions, lowered: Lowered, examples: Sequence[Example], work: Path
) -> TimedForm:
    """The form ready to run; its file is in the folder `work` for a moment.

    Raises:
        CheckFailed: on one of `examples` it computes something else than PyTorch.
    """
    runner = _runner(lowered.graph, work)
    if problem := _problem(runner, examples):
        raise CheckFailed(
            f"the form {rewrites.text} does not compute what PyTorch does: {problem}. This is "
            "a bug: please report it."
        )
    return TimedForm(rewrites, lowered, runner)


def untouched_runner(
    subject: Subject, batch: int | None, examples: Sequence[Example], work: Path
) -> OnnxRunner | None:
    """The export of `subject` without any rewriting, ready to run; None where the exporter cannot
    make it, or it computes something else.
    """
    try:
        with quiet():
            graph = onnx_from_module(
                subject.module,
                subject.example_inputs,
                input_names=subject.input_names,
                output_names=subject.output_names,
                batch=batch,
            )
        runner = _runner(graph, work)
        return None if _problem(runner, examples) else runner
    except Exception:  # an exporter fails in every way at what was not written for it
        return None


def example_of(subject: Subject, batch: int) -> Example:
    """The subject's own example inputs as a batch of `batch`, and what PyTorch makes of it."""
    inputs = {
        name: np.resize(array, (batch, *array.shape[1:]))
        for name, array in subject.examples().items()
    }
    return Example(inputs, subject.run(inputs))


def ratio_of(one: OnnxRunner, other: OnnxRunner, examples: Sequence[Example]) -> float:
    """How many times as fast `one` is, all of `examples` alike."""
    return statistics.geometric_mean(
        speed_ratio(partial(one.run, x.inputs), partial(other.run, x.inputs)) for x in examples
    )


def _problem(runner: OnnxRunner, examples: Sequence[Example]) -> str | None:
    """How what `runner` makes of `examples` differs from PyTorch's by more than FP32 may."""
    for example in examples:
        outputs = runner.run(example.inputs)
        if problem := example.problem(outputs, DEFAULT_TOLERANCES["fp32"], slack=1.0):
            return problem
    return None


def _runner(graph: ir.Model, work: Path) -> OnnxRunner:
    path = work / "form.onnx"
    ir.save(graph, path)
    try:
        # Its threads sleep while they wait: the other form's want the cores.
        return OnnxRunner(path, spinning=False)
    finally:
        path.unlink()
