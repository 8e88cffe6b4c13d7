"""A batch larger than an engine takes at once, run in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.manifest import TensorSpec
from sam_deploy.plans import BatchProfile
from sam_deploy.runner import Array, Arrays, Runner


def profile_of(inputs: Sequence[TensorSpec], plan: BatchProfile | None) -> BatchProfile | None:
    """The batches that an engine takes: of its plan, or the one that its graph has; None is any."""
    sizes = {spec.dims[0] for spec in inputs}
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(sizes) == 1 and fixed:
        return BatchProfile(min=fixed[0], opt=fixed[0], max=fixed[0])
    return plan


def run_split(
    runner: Runner,
    inputs: Mapping[str, Array],
    outputs: Sequence[TensorSpec],
    profile: BatchProfile | None,
) -> Arrays:
    """`runner` on `inputs`, all with the batch first, in as few and as even parts as `profile`
    allows.

    A part below the profile is filled up with repeats, whose results are dropped.

    Raises:
        InputError: it would have to be split, and an output has no batch to put together again.
    """
    batch = max(len(array) for array in inputs.values())
    if profile is None or batch <= profile.max:
        return runner.run(inputs)
    free = {spec.name for spec in outputs if isinstance(spec.dims[0] if spec.dims else 0, str)}
    fixed_alike = {
        spec.name for spec in outputs if spec.dims and spec.dims[0] == profile.max == profile.min
    }
    apart = [spec.name for spec in outputs if spec.name not in free | fixed_alike]
    if apart or {len(array) for array in inputs.values()} != {batch}:
        raise InputError(
            f"a batch of {batch} is more than the {profile.max} that this engine takes at once, "
            f"and cannot be split: {', '.join(apart) or 'the inputs'} differ in their batch."
        )
    parts = -(-batch // profile.max)
    found = [
        _part(runner, {name: array[rows] for name, array in inputs.items()}, profile)
        for rows in _slices(batch, parts)
    ]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _slices(batch: int, parts: int) -> list[slice]:
    ends = [batch * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _part(runner: Runner, rows: Arrays, profile: BatchProfile) -> Arrays:
    count = len(next(iter(rows.values())))
    size = max(count, profile.min)
    filled = {name: np.resize(array, (size, *array.shape[1:])) for name, array in rows.items()}
    return {name: array[:count] for name, array in runner.run(filled).items()}
