"""The gate: run an artefact and the reference on the same samples, and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity.figures import OutputFigures
from sam_deploy.parity.samples import Samples, SamplesHash
from sam_deploy.parity_report import OutputParity, ParityReport
from sam_deploy.plans import BatchProfile
from sam_deploy.recipe import Tolerances
from sam_deploy.runner import Array, Arrays, Runner

Reference = Callable[[Mapping[str, Array]], Arrays]


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
    profile: BatchProfile | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> ParityReport:
    """Compare `runner` with `reference` over all `samples`, `batch` at a time.

    Both get the same arrays. The last batch may be smaller; where the inputs' batch is fixed it is
    filled up with repeats, which are not judged. Where it is free, batches of 1 and of more than 2
    are made so if there are none: a graph that only works at the size it was traced with must show.
    `profile` are the batch sizes that the artefact takes.
    `progress` is told how many samples were added.

    Returns the report with every tolerance that was broken as a reason; `passed` is the verdict.

    Raises:
        CheckFailed: the comparison itself is void: no samples, an output missing or too many, a
            shape or dtype that the manifest does not declare, NaN or infinity on either side.
        InputError: none of the images could be read.
    """
    free = isinstance(inputs[0].dims[0], str)
    figures = {
        output.name: OutputFigures(output.name, classes=classes and len(outputs) == 1)
        for output in outputs
    }
    used = SamplesHash()
    count = 0
    if profile is not None:
        batch = min(batch, profile.max)
    for x in samples.batches(batch):
        used.update(x)
        rows = len(next(iter(x.values())))
        sizes = {rows} if free else {batch}
        if free and not count:
            sizes |= _missing_sizes(samples.count, batch)
        if profile is not None:  # fill up, or leave out what it does not take
            sizes = {max(size, profile.min) for size in sizes if size <= profile.max}
        for size in sorted(sizes):
            _compare(artefact, runner, reference, x, rows, size, inputs, outputs, figures)
        count += rows
        progress(rows)
    if not count:
        raise CheckFailed(f"parity of {artefact}: no samples, so nothing was compared")
    if not any(figure.tells for figure in figures.values()):
        raise CheckFailed(f"parity of {artefact} is void: the reference's outputs are constant")
    try:
        results = [figure.result() for figure in figures.values()]
    except ValueError as error:
        raise CheckFailed(f"parity of {artefact} is void: {error}") from None
    return ParityReport(
        artefact=artefact,
        backend=runner.backend,
        data=samples.kind,
        samples=count,
        unreadable=len(samples.unreadable),
        data_sha256=used.hexdigest(),
        tolerances=tolerances,
        outputs=results,
        failures=[reason for result in results for reason in broken(result, tolerances)],
    )


def _missing_sizes(count: int, batch: int) -> set[int]:
    """Batch sizes that `count` samples in batches of `batch` would not show."""
    shown = {min(batch, count), count % batch}
    return ({1} - shown) | (set() if max(shown) > 2 else {3})


def broken(result: OutputParity, tolerances: Tolerances) -> Iterator[str]:
    """The tolerances that `result` does not keep; a figure that is no number keeps none."""
    least, most = "at least", "allowed"
    for what, figure, limit, bound, form in (
        ("relative RMS", result.relative_rms, tolerances.relative_rms, most, ".1e"),
        ("largest error", result.max_error, tolerances.max_error, most, ".1e"),
        ("cosine", result.cosine, tolerances.cosine, least, ".6f"),
        ("top-1 agreement", result.top1_agreement, tolerances.top1_agreement, least, ".4f"),
        ("equal elements", result.equal_elements, tolerances.top1_agreement, least, ".4f"),
    ):
        if figure is None:
            continue
        kept = figure <= limit if bound == most else figure >= limit
        if not kept:
            shown = f"{limit:{form}}" if bound == most else f"{limit}"
            yield f"{result.name}: {what} {figure:{form}}, {bound} {shown}"


def _compare(
    artefact: str,
    runner: Runner,
    reference: Reference,
    x: Arrays,
    rows: int,
    size: int,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
    figures: dict[str, OutputFigures],
) -> None:
    """Run both on `x`, its `rows` repeated up to `size`, and take in the figures."""
    fed = {name: np.resize(array, (size, *array.shape[1:])) for name, array in x.items()}
    expected = reference(fed)
    actual = _run(artefact, runner, {i.name: fed[i.name].astype(i.dtype) for i in inputs})
    for output in outputs:
        a, r = _pair(artefact, output, actual, expected, size)
        judged = slice(rows) if len(a.shape) and len(a) == size else ...
        figures[output.name].update(a[judged], r[judged])
    _nothing_else(artefact, actual, expected, figures)


def _run(artefact: str, runner: Runner, inputs: Arrays) -> Arrays:
    try:
        return runner.run(inputs)
    except Exception as error:  # a backend may raise anything
        raise CheckFailed(f"parity of {artefact}: it does not run: {error}") from None


def _pair(
    artefact: str, output: TensorSpec, actual: Arrays, expected: Arrays, size: int
) -> tuple[Array, Array]:
    where = f"parity of {artefact}, output {output.name}"
    if output.name not in actual:
        raise CheckFailed(f"{where}: missing; the artefact gives {sorted(actual)}")
    if output.name not in expected:
        raise CheckFailed(f"{where}: the reference does not have it")
    if actual[output.name].dtype != np.dtype(output.dtype):
        raise CheckFailed(f"{where}: {actual[output.name].dtype}, expected {output.dtype}")
    a, r = actual[output.name], expected[output.name]
    for side, array in (("the artefact", a), ("the reference", r)):
        if not _fits(array.shape, output, size):
            declared = tuple(size if dim == "batch" else dim for dim in output.dims)
            raise CheckFailed(f"{where}: {side} gives shape {array.shape}, declared is {declared}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckFailed(f"{where}: {side} holds NaN or infinity")
    if a.shape != r.shape:
        raise CheckFailed(f"{where}: shape {a.shape}, the reference's is {r.shape}")
    return a, r


def _fits(shape: tuple[int, ...], output: TensorSpec, size: int) -> bool:
    """Whether `shape` is as declared; a free size other than the batch may be any."""
    return len(shape) == len(output.dims) and all(
        actual == (size if dim == "batch" else dim) or (dim != "batch" and isinstance(dim, str))
        for actual, dim in zip(shape, output.dims, strict=True)
    )


def _nothing_else(
    artefact: str, actual: Arrays, expected: Arrays, declared: dict[str, OutputFigures]
) -> None:
    for side, outputs in (("the artefact", actual), ("the reference", expected)):
        extra = sorted(set(outputs) - set(declared))
        if extra:
            raise CheckFailed(f"parity of {artefact}: {side} has undeclared outputs {extra}")
