"""Samples from any Python iterable, kept on disk: it is read once, the samples are used often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.parity import Samples
from sam_deploy.parity.fitting import fitted
from sam_deploy.runner import Array, Arrays

_SPOOL = "calibration.spool"


def spooled_samples(batches: Iterable[Any], examples: Arrays, folder: Path) -> Samples:
    """The samples of `batches`, written to a file in `folder`.

    A batch is a tensor or array (B, ...), a tuple or list that begins with one for each input (a
    DataLoader's images and labels), or a dict by input name. `examples` are arrays like the inputs.

    Raises:
        InputError: a batch is none of these or does not fit, or there are none.
    """
    if hasattr(batches, "shape"):  # an array or tensor is one batch, not many
        batches = [batches]
    try:
        given = iter(batches)
    except TypeError:
        raise InputError(
            f"got a {type(batches).__name__} to calibrate on; expected an iterable of batches, a "
            "folder, an .npz or 'synthetic'."
        ) from None
    path = folder / _SPOOL
    count = 0
    with path.open("wb") as file:
        for number, batch in enumerate(given):
            arrays = _arrays(batch, examples, number)
            for row in range(len(next(iter(arrays.values())))):
                for array in arrays.values():
                    np.save(file, array[row], allow_pickle=False)
                count += 1
    if not count:
        raise InputError("the calibration iterable is empty. Give 100 samples or more.")

    def make(start: int) -> Iterator[tuple[int, Arrays]]:
        with path.open("rb") as file:
            for number in range(count):
                sample = {name: np.load(file, allow_pickle=False) for name in examples}
                if number >= start:
                    yield number, sample

    return Samples("iterable", count, make)


def _arrays(batch: Any, examples: Arrays, number: int) -> Arrays:
    where = f"batch {number} of the calibration iterable"
    if isinstance(batch, Mapping):
        found = {name: batch[name] for name in examples if name in batch}
    else:
        listed = list(batch) if isinstance(batch, tuple | list) else [batch]
        found = dict(zip(examples, listed, strict=False))
    if len(found) < len(examples):
        raise InputError(
            f"{where} has {', '.join(found) or 'nothing'}; expected an array for each input: "
            f"{', '.join(examples)}."
        )
    arrays = {
        name: _fitting(value, examples[name], f"{name} in {where}") for name, value in found.items()
    }
    if len({len(array) for array in arrays.values()}) != 1:
        raise InputError(f"{where} has inputs of unequal batch sizes.")
    return arrays


def _fitting(value: Any, like: Array, where: str) -> Array:
    if hasattr(value, "detach"):  # a tensor, wherever it is
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value  # numpy has no bfloat16
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{where} is no array: {error}.") from None
    return fitted(array, like, where, "batch")
