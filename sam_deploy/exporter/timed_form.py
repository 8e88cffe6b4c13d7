"""The rewrites' forms in the recipe's precision, to be timed on what runs ONNX on this CPU."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir

from sam_deploy.errors import CheckFailed
from sam_deploy.example import Example, distance
from sam_deploy.exporter.calibrated import calibrate, quantize
from sam_deploy.exporter.lowered import Lowered
from sam_deploy.latency import ROUNDS, speed_ratio
from sam_deploy.lowering import onnx_from_module
from sam_deploy.lowering.batch import quiet
from sam_deploy.manifest import IslandReport
from sam_deploy.parity import Samples
from sam_deploy.progress import Progress
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import DEFAULT_TOLERANCES, Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.runner import Arrays
from sam_deploy.runtime.onnx_backends import AnyOnnxRunner, allows_bf16, start_onnx
from sam_deploy.runtime.onnx_runner import CPU

Lower = Callable[[RewriteOptions], Lowered]
_FIRST_LOOK, _MUCH_SLOWER = 3, 0.9  # rounds, and what noise does not make of a form as fast
_FURTHER = 1.25  # times as far in INT8 as the first form: rough ranges differ by less
_SAMPLES = 8  # for ranges that only have to be like the real ones: they change no time


@dataclass(frozen=True)
class TimedForm:
    """A form ready to run, and known to compute what PyTorch does."""

    rewrites: RewriteOptions
    runner: AnyOnnxRunner


class _Made(NamedTuple):
    """A form's file, and what ONNX Runtime's CPU provider makes of every example with it."""

    path: Path
    outputs: list[Arrays]


class Forms:
    """The forms of one subject. Each is made once (`lower` gives its FP32 graph, its rules held in
    float64), held against eager PyTorch on `examples`, and kept as a file in the folder `work`.

    INT8 has its Q/DQ where the recipe wants them, with ranges of a few of the calibration samples;
    it may be little further from PyTorch than the form that was added first. FP16 is as good as
    FP32 here, CPUs computing it so, or in BF16.
    """

    def __init__(
        self,
        lower: Lower,
        subject: Subject,
        recipe: Recipe,
        calibration: Samples | None,
        batches: Sequence[int],
        work: Path,
    ) -> None:
        self._lower, self._subject, self._recipe = lower, subject, recipe
        self._calibration = calibration if recipe.precision == "int8" else None
        self._work = work
        self._made: dict[RewriteOptions, _Made | CheckFailed] = {}
        self._most = math.inf  # of the distance to PyTorch in INT8
        self.examples = [_example_of(subject, batch) for batch in batches]

    def on(self, provider: str, rewrites: RewriteOptions) -> TimedForm:
        """The form on ONNX Runtime's CPU provider or OpenVINO.

        Raises:
            CheckFailed: the form computes something else than PyTorch, or `provider` something else
                than ONNX Runtime's CPU provider.
            MachineError: `provider` does not run it here.
        """
        if rewrites not in self._made:
            try:
                self.add(rewrites, self._lower(rewrites))
            except CheckFailed as failure:
                self._made[rewrites] = failure
        made = self._made[rewrites]
        if isinstance(made, CheckFailed):
            raise made
        return TimedForm(rewrites, self._held(made, provider))

    def add(self, rewrites: RewriteOptions, lowered: Lowered) -> None:
        """Make the form of its FP32 graph, which is left as it is.

        Raises:
            CheckFailed: it computes something else than PyTorch, or loses more to INT8 than the
                first form did.
        """
        path = self._work / f"form-{len(self._made)}.onnx"
        outputs = self._outputs(lowered.graph, path)
        if problem := self._problem(outputs):
            raise CheckFailed(
                f"the form {rewrites.text} does not compute what PyTorch does: {problem}. This is "
                "a bug: please report it."
            )
        if self._calibration is not None:
            graph = self._quantized(lowered.graph, self._calibration)
            outputs = self._outputs(graph, path)
            far = self._farthest(outputs)
            if not far <= self._most:
                raise CheckFailed(
                    f"in INT8 the form {rewrites.text} is {far:.2g} from PyTorch (relative RMS), "
                    f"more than {_FURTHER:g} times as far as the recipe's forms"
                )
            if not self._made:
                self._most = _FURTHER * far
        self._made[rewrites] = _Made(path, outputs)

    def untouched(self, provider: str) -> AnyOnnxRunner | None:
        """The export without any rewriting or quantization, ready to run; None where the exporter
        cannot make it, or it computes something else.
        """
        subject, path = self._subject, self._work / "untouched.onnx"
        try:
            with quiet():
                graph = onnx_from_module(
                    subject.module,
                    subject.example_inputs,
                    input_names=subject.input_names,
                    output_names=subject.output_names,
                    batch=self._recipe.batch,
                )
            made = _Made(path, self._outputs(graph, path))
            return None if self._problem(made.outputs) else self._held(made, provider)
        except Exception:  # an exporter fails in every way at what was not written for it
            return None

    def close(self) -> None:
        """Remove the files."""
        for path in self._work.glob("*.onnx"):
            path.unlink()

    def _outputs(self, graph: ir.Model, path: Path) -> list[Arrays]:
        """What ONNX Runtime makes of every example with `graph`, which is written to `path`."""
        ir.save(graph, path)
        runner = _runner(path, CPU)
        return [runner.run(example.inputs) for example in self.examples]

    def _problem(self, outputs: Sequence[Arrays]) -> str | None:
        """How they differ from PyTorch's by more than FP32 may."""
        for example, found in zip(self.examples, outputs, strict=True):
            if problem := example.problem(found, DEFAULT_TOLERANCES["fp32"], slack=1.0):
                return problem
        return None

    def _farthest(self, outputs: Sequence[Arrays]) -> float:
        """The largest relative RMS of an output of floats."""
        return max(
            (
                distance(found[name], expected)
                for example, found in zip(self.examples, outputs, strict=True)
                for name, expected in example.outputs.items()
                if expected.dtype.kind == "f"
            ),
            default=0.0,
        )

    def _held(self, made: _Made, provider: str) -> AnyOnnxRunner:
        if provider == CPU:
            return _runner(made.path, CPU)
        runner = _runner(made.path, provider, bf16=allows_bf16(self._recipe))
        precision = self._recipe.precision
        limits = DEFAULT_TOLERANCES["fp32"] if precision == "fp32" else self._recipe.tolerances
        for example, outputs in zip(self.examples, made.outputs, strict=True):
            expected = Example(example.inputs, outputs)
            if problem := expected.problem(runner.run(example.inputs), limits, slack=1.0):
                raise CheckFailed(f"{runner.backend} is not as ONNX Runtime: {problem}")
        return runner

    def _quantized(self, graph: ir.Model, samples: Samples) -> ir.Model:
        graph = graph.clone()
        policy = msgspec.structs.replace(
            self._recipe.quantization or Quantization(),
            method="minmax",
            smooth=0.0,
            rounding="nearest",
        )
        recipe = msgspec.structs.replace(self._recipe, quantization=policy)
        islands = [IslandReport(match=i.match, reason=i.reason) for i in self._subject.islands]
        few = samples.first(_SAMPLES)
        found = calibrate(graph, recipe, islands, few, self._work, Progress())
        quantize(graph, found, islands)
        return graph


def ratio_of(one: AnyOnnxRunner, other: AnyOnnxRunner, examples: Sequence[Example]) -> float:
    """How many times as fast `one` is, all of `examples` alike: after a first look, where that says
    that it is much slower.
    """

    def measured(rounds: int) -> float:
        return statistics.geometric_mean(
            speed_ratio(partial(one.run, x.inputs), partial(other.run, x.inputs), rounds)
            for x in examples
        )

    first = measured(_FIRST_LOOK)
    return first if first < _MUCH_SLOWER else measured(ROUNDS)


def _example_of(subject: Subject, batch: int) -> Example:
    """The subject's own example inputs as a batch of `batch`, and what PyTorch makes of it."""
    inputs = {
        name: np.resize(array, (batch, *array.shape[1:]))
        for name, array in subject.examples().items()
    }
    return Example(inputs, subject.run(inputs))


def _runner(path: Path, provider: str, *, bf16: bool = False) -> AnyOnnxRunner:
    # Its threads sleep while they wait: the other form's want the cores.
    return start_onnx(path, provider, spinning=False, bf16=bf16)
