"""Whether every slot of a batch gives its own sample's result, at every batch size that is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sam_deploy.agreement import relative_rms
from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity.comparison import Reference
from sam_deploy.parity.pairs import paired
from sam_deploy.parity.samples import Samples
from sam_deploy.parity_report import BatchParity
from sam_deploy.runner import Array, Arrays, Runner

Rows = list[Arrays]
"""Of each sample its arrays by name, with a batch of 1."""


def chosen_rows(samples: Samples, most: int) -> Rows:
    """Up to `most` samples, spread over all of them."""
    step = max(samples.count // most, 1)
    if samples.kind != "folder":  # those before a row must be made anyway
        every = (sample for number, sample in samples.make(0) if number % step == 0)
        return [_alone(sample) for sample, _ in zip(every, range(most), strict=False)]
    found: Rows = []
    for start in range(0, samples.count, step):
        for _, sample in samples.make(start):  # the first that can be read
            found.append(_alone(sample))
            break
        if len(found) == most:
            break
    return found


def measure_batches(
    runner: Runner,
    rows: Rows,
    expected: Rows,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    sizes: Iterable[int],
    progress: Callable[[int], None] = lambda done: None,
) -> list[BatchParity]:
    """Run `rows` in batches of each of `sizes`, and hold every slot against what is `expected` of
    its sample alone. Then each sample is run in the next slot, and its two results compared.

    Fewer rows than slots are repeated. Only floats with the batch first are looked at.

    Raises:
        CheckFailed: an output of a batch is not as declared, or the artefact does not run.
    """
    floats = [o for o in outputs if o.dtype.startswith("float") and o.dims[:1] != []]
    spread = {
        o.name: float(np.std([e[o.name].astype(np.float64) for e in expected])) for o in floats
    }
    found = []
    for size in sizes:
        order = [slot % len(rows) for slot in range(size)]
        here = _run(runner, rows, order, inputs, outputs, expected)
        moved = _run(runner, rows, [order[-1], *order[:-1]], inputs, outputs, expected)
        slots, neighbours = [0.0] * size, 0.0
        for output in floats:
            for slot, row in enumerate(order):
                error = here[output.name][slot] - expected[row][output.name][0].astype(np.float64)
                rms = float(np.sqrt(np.mean(np.square(error)))) / (spread[output.name] or np.inf)
                slots[slot] = max(slots[slot], rms)
            other = np.roll(moved[output.name], -1, axis=0)
            neighbours = max(neighbours, relative_rms(other, here[output.name]))
        found.append(BatchParity(size=size, slots_rms=slots, neighbours_rms=neighbours))
        progress(1)
    return found


def _run(
    runner: Runner,
    rows: Rows,
    order: Sequence[int],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    expected: Rows,
) -> Arrays:
    fed = {
        spec.name: np.concatenate([rows[row][spec.name] for row in order]).astype(spec.dtype)
        for spec in inputs
    }
    alone = {o.name: np.concatenate([expected[row][o.name] for row in order]) for o in outputs}
    try:
        actual = runner.run(fed)
    except Exception as error:  # a backend may raise anything
        raise CheckFailed(f"a batch of {len(order)} does not run: {error}") from None
    pairs = paired(outputs, actual, alone, len(order))
    return {o.name: a.astype(np.float64) for o, (a, _) in zip(outputs, pairs, strict=True)}


def expected_alone(reference: Reference, rows: Rows, progress: Callable[[int], None]) -> Rows:
    """What the reference gives for each row on its own."""
    found = []
    for row in rows:
        found.append(reference(row))
        progress(1)
    return found


def _alone(sample: Arrays) -> dict[str, Array]:
    return {name: array[None] for name, array in sample.items()}
