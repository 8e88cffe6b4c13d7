"""Whether every slot of a batch gives its own sample's result, at every batch size that is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sam_deploy.agreement import relative_rms
from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity.comparison import Reference
from sam_deploy.parity.folders import spread
from sam_deploy.parity.pairs import paired
from sam_deploy.parity.samples import Samples
from sam_deploy.parity_report import BatchParity
from sam_deploy.progress import Advance
from sam_deploy.runner import Array, Arrays, Runner

Rows = list[Arrays]
"""Of each sample its arrays by name, with a batch of 1."""


def chosen_rows(samples: Samples, most: int) -> Rows:
    """Up to `most` samples, spread over all of them."""
    wanted = spread(samples.count, most)
    if samples.kind != "folder":  # those before a row must be made anyway
        chosen = set(wanted)
        every = (sample for number, sample in samples.make(0) if number in chosen)
        return [_alone(sample) for _, sample in zip(wanted, every, strict=False)]
    found: Rows = []
    for start in wanted:
        for _, sample in samples.make(start):  # the first that can be read
            found.append(_alone(sample))
            break
    return found


def measure_batches(
    runner: Runner,
    rows: Rows,
    expected: Rows,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    sizes: Iterable[int],
    progress: Advance = lambda done: None,
) -> list[BatchParity]:
    """Run `rows` in batches of each of `sizes`, and hold every slot against what is `expected` of
    its sample alone. Then the batch is run the other way round, so that every sample has other
    neighbours before and behind it, and its two results are compared.

    Fewer rows than slots are repeated. Outputs that are no floats, or have no batch, are left out.

    Raises:
        CheckFailed: an output of a batch is not as declared, or the artefact does not run.
    """
    judged = [o for o in outputs if o.dtype.startswith("float") and _has_batch(o, inputs)]
    spread = {o.name: _spread([e[o.name] for e in expected]) for o in judged}
    found = []
    for size in sizes if judged else ():
        order = [slot % len(rows) for slot in range(size)]
        here, alone = _run(runner, rows, expected, order, inputs, judged)
        turned, _ = _run(runner, rows, expected, order[::-1], inputs, judged)
        slots = np.zeros(size)
        neighbours = 0.0
        for name, array in here.items():
            squares = np.square(array - alone[name]).reshape(size, -1)
            slots = np.maximum(slots, np.sqrt(squares.mean(axis=1)) / spread[name])
            neighbours = max(neighbours, relative_rms(turned[name][::-1], array))
        found.append(BatchParity(size=size, slots_rms=slots.tolist(), neighbours_rms=neighbours))
        progress(1)
    return found


def expected_alone(
    reference: Reference, rows: Rows, batch: int | None, progress: Advance = lambda done: None
) -> Rows:
    """What the reference gives for each row on its own; where its `batch` is fixed, beside copies
    of itself.
    """
    found = []
    for row in rows:
        outputs = reference({n: np.repeat(a, batch or 1, axis=0) for n, a in row.items()})
        found.append({name: array[:1] if array.ndim else array for name, array in outputs.items()})
        progress(1)
    return found


def _run(
    runner: Runner,
    rows: Rows,
    expected: Rows,
    order: Sequence[int],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> tuple[Arrays, Arrays]:
    """What the artefact gives for the rows in `order`, and what is expected."""
    fed = {
        spec.name: np.concatenate([rows[row][spec.name] for row in order]).astype(spec.dtype)
        for spec in inputs
    }
    alone = {o.name: np.concatenate([expected[row][o.name] for row in order]) for o in outputs}
    try:
        given = runner.run(fed)
    except Exception as error:  # a backend may raise anything
        raise CheckFailed(f"a batch of {len(order)} does not run: {error}") from None
    actual = {name: array for name, array in given.items() if name in alone}
    pairs = paired(outputs, actual, alone, len(order))
    return (
        {o.name: a.astype(np.float64) for o, (a, _) in zip(outputs, pairs, strict=True)},
        {o.name: r.astype(np.float64) for o, (_, r) in zip(outputs, pairs, strict=True)},
    )


def _spread(arrays: Sequence[Array]) -> float:
    """What an error is measured by: of a constant its size, and of zeros 1."""
    values = np.stack(arrays).astype(np.float64)
    return float(values.std() or np.abs(values).max() or 1.0)


def _has_batch(output: TensorSpec, inputs: Sequence[TensorSpec]) -> bool:
    return bool(output.dims) and output.dims[0] == inputs[0].dims[0]


def _alone(sample: Arrays) -> dict[str, Array]:
    return {name: array[None] for name, array in sample.items()}
