"""The gate: run artefacts and the reference on the same samples, and judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sam_deploy.manifest import TensorSpec
from sam_deploy.parity.comparison import Comparison, Reference
from sam_deploy.parity.sample_hash import SamplesHash
from sam_deploy.parity.samples import Samples
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import BatchProfile
from sam_deploy.progress import Advance
from sam_deploy.recipe import Tolerances
from sam_deploy.runner import Arrays, Runner

PARITY_BATCH = 4
_VALUES, _MOST = 4 * 3 * 224 * 224, 32  # of a batch of images of a usual size; of small samples


@dataclass
class Taken:
    """How far a comparison is: the next sample's number, how many were compared, their hash."""

    next: int = 0
    samples: int = 0
    hash: SamplesHash = field(default_factory=SamplesHash)


def measure_parity(
    runner: Runner,
    reference: Reference,
    samples: Samples,
    *,
    artefact: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    classes: bool,
    tolerances: Tolerances,
    batch: int,
    profile: BatchProfile | None = None,
    progress: Advance = lambda done: None,
) -> ParityReport:
    """Compare `runner` with `reference` over all `samples`, `batch` at a time.

    Both get the same arrays; the rest is as in `Comparison` and `compare`.

    Returns the report with every tolerance that was broken as a reason; `passed` is the verdict.

    Raises:
        CheckFailed: the comparison itself is void: no samples, an output missing or too many, a
            shape or dtype that the manifest does not declare, NaN or infinity on either side.
        InputError: none of the images could be read.
    """
    comparison = Comparison(
        artefact,
        runner,
        inputs,
        outputs,
        classes=classes,
        tolerances=tolerances,
        profile=profile,
    )
    taken = Taken()
    compare([comparison], reference, samples, batch=batch, taken=taken, progress=progress)
    return comparison.report(**described(samples, taken))


def compare(
    comparisons: Sequence[Comparison],
    reference: Reference,
    samples: Samples,
    *,
    batch: int,
    taken: Taken,
    progress: Advance = lambda done: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run all on the samples from where `taken` stands, `batch` at a time, or as many as each of
    the artefacts takes, in constant memory.

    The last batch may be smaller; where an artefact's batch is fixed it is filled up with repeats,
    which are not judged. Where it is free, batches of 1 and of more than 2 are made so if there are
    none: a graph that only works at the size it was traced with must show. One that became void is
    left out; when all are, it ends. `progress` is told how many samples were added, and `after` is
    called behind each batch.

    Raises:
        InputError: none of the images could be read.
    """
    batch = min([batch, *(c.profile.max for c in comparisons if c.profile is not None)])
    for numbers, x in samples.numbered(batch, taken.next):
        running = [comparison for comparison in comparisons if comparison.void is None]
        if not running:
            return
        extra = set() if taken.samples else _missing_sizes(samples.count, batch)
        labels = samples.labels and [samples.labels[number] for number in numbers]
        expected: dict[int, Arrays] = {}
        for comparison in running:
            sizes = comparison.sizes(len(numbers), batch, extra)
            whole = min(size for size in sizes if size >= len(numbers))
            for size in sizes:
                fed = {name: np.resize(a, (size, *a.shape[1:])) for name, a in x.items()}
                if size not in expected:
                    expected[size] = reference(fed)
                comparison.take(fed, expected[size], numbers, labels, counted=size == whole)
        taken.hash.update(x)
        taken.samples += len(numbers)
        taken.next = numbers[-1] + 1
        progress(len(numbers))
        after()


def batch_of(examples: Arrays) -> int:
    """How many samples like `examples` to run at once: 4 of 224 px, more of what is smaller."""
    values = sum(array[:1].size for array in examples.values())
    return max(PARITY_BATCH, min(_VALUES // max(values, 1), _MOST))


def described(samples: Samples, taken: Taken) -> dict[str, object]:
    """What a report says of the samples."""
    return {
        "data": samples.kind,
        "samples": taken.samples,
        "unreadable": len(samples.unreadable),
        "data_sha256": taken.hash.hexdigest(),
    }


def _missing_sizes(count: int, batch: int) -> set[int]:
    """Batch sizes that `count` samples in batches of `batch` would not show."""
    shown = {min(batch, count), count % batch}
    return ({1} - shown) | (set() if max(shown) > 2 else {3})
