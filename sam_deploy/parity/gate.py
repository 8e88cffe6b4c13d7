"""The gate: run an artefact and the reference on the same samples, and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import OutputParity, ParityReport, TensorSpec
from sam_deploy.parity.figures import OutputFigures
from sam_deploy.parity.samples import Samples, SamplesHash
from sam_deploy.recipe import Tolerances

Outputs = dict[str, npt.NDArray[np.floating[Any]]]
Reference = Callable[[npt.NDArray[np.float32]], Outputs]


class Runner(Protocol):
    """What runs an artefact; every backend looks like this."""

    @property
    def backend(self) -> str:
        """What runs it, for reports."""
        ...

    def run(self, inputs: Mapping[str, npt.NDArray[np.floating[Any]]]) -> Outputs:
        """Arrays by input name to arrays by output name."""
        ...


def measure_parity(
    runner: Runner,
    reference: Reference,
    samples: Samples,
    *,
    artefact: str,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
    classes: bool,
    tolerances: Tolerances,
    batch: int,
    progress: Callable[[int], None] = lambda done: None,
) -> ParityReport:
    """Compare `runner` with `reference` over all `samples`, `batch` at a time.

    The last batch may be smaller; where the input's batch is fixed it is filled up with repeats,
    which are not judged. `progress` is told how many samples were added.

    Returns the report with every tolerance that was broken as a reason; `passed` is the verdict.

    Raises:
        CheckFailed: the comparison itself is void: no samples, an output missing or too many, a
            shape or dtype that the manifest does not declare, NaN or infinity on either side.
    """
    spec = inputs[0]
    fixed = isinstance(spec.dims[0], int)
    figures = {
        output.name: OutputFigures(output.name, classes=classes and len(outputs) == 1)
        for output in outputs
    }
    used = SamplesHash()
    count = 0
    for x in samples.batches(batch):
        used.update(x)
        fed = np.resize(x, (batch, *x.shape[1:])) if fixed else x
        expected = reference(x)
        actual = _run(artefact, runner, {spec.name: fed.astype(spec.dtype)})
        for output in outputs:
            pair = _pair(artefact, output, actual, expected, len(fed), len(x))
            figures[output.name].update(*pair)
        _nothing_else(artefact, actual, expected, figures)
        count += len(x)
        progress(len(x))
    if not count:
        raise CheckFailed(f"parity of {artefact}: no samples, so nothing was compared")
    try:
        results = [figure.result() for figure in figures.values()]
    except ValueError as error:
        raise CheckFailed(f"parity of {artefact} is void: {error}") from None
    return ParityReport(
        artefact=artefact,
        backend=runner.backend,
        data=samples.kind,
        samples=count,
        data_sha256=used.hexdigest(),
        tolerances=tolerances,
        outputs=results,
        failures=[reason for result in results for reason in broken(result, tolerances)],
    )


def broken(result: OutputParity, tolerances: Tolerances) -> Iterator[str]:
    """The tolerances that `result` does not keep; a figure that is no number keeps none."""
    if not result.relative_rms <= tolerances.relative_rms:
        yield (
            f"{result.name}: relative RMS {result.relative_rms:.1e}, "
            f"allowed {tolerances.relative_rms:.1e}"
        )
    if not result.max_error <= tolerances.max_error:
        yield (
            f"{result.name}: largest error {result.max_error:.1e}, "
            f"allowed {tolerances.max_error:.1e}"
        )
    if not result.cosine >= tolerances.cosine:
        yield f"{result.name}: cosine {result.cosine:.6f}, at least {tolerances.cosine}"
    if result.top1_agreement is not None and not result.top1_agreement >= tolerances.top1_agreement:
        yield (
            f"{result.name}: top-1 agreement {result.top1_agreement:.4f}, "
            f"at least {tolerances.top1_agreement}"
        )


def _run(artefact: str, runner: Runner, inputs: Outputs) -> Outputs:
    try:
        return runner.run(inputs)
    except Exception as error:  # a backend may raise anything
        raise CheckFailed(f"parity of {artefact}: it does not run: {error}") from None


def _pair(
    artefact: str, output: TensorSpec, actual: Outputs, expected: Outputs, fed: int, rows: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    where = f"parity of {artefact}, output {output.name}"
    if output.name not in actual:
        raise CheckFailed(f"{where}: missing; the artefact gives {sorted(actual)}")
    if output.name not in expected:
        raise CheckFailed(f"{where}: the reference does not have it")
    if actual[output.name].dtype != np.dtype(output.dtype):
        raise CheckFailed(f"{where}: {actual[output.name].dtype}, expected {output.dtype}")
    a, r = actual[output.name], expected[output.name]
    for side, array, batch in (("the artefact", a, fed), ("the reference", r, rows)):
        shape = (batch, *output.dims[1:])
        if array.shape != shape:
            raise CheckFailed(f"{where}: {side} gives shape {array.shape}, declared is {shape}")
        if not np.isfinite(array[:rows]).all():
            raise CheckFailed(f"{where}: {side} holds NaN or infinity")
    return a[:rows], r


def _nothing_else(
    artefact: str, actual: Outputs, expected: Outputs, declared: dict[str, OutputFigures]
) -> None:
    for side, outputs in (("the artefact", actual), ("the reference", expected)):
        extra = sorted(set(outputs) - set(declared))
        if extra:
            raise CheckFailed(f"parity of {artefact}: {side} has undeclared outputs {extra}")
