"""Which samples an export is validated on: a folder of images, an .npz, or what is built in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.parity import (
    Samples,
    array_samples,
    folder_samples,
    normal_samples,
    synthetic_samples,
)
from sam_deploy.reference.subject import Subject
from sam_deploy.runner import Array, Arrays

BUILT_IN_SAMPLES = 33  # with a batch of 4 the last one is a batch of 1


def samples_for(subject: Subject, data: Path | None) -> Samples:
    """The samples in `data`; without it built-in images, or the example inputs of a network that
    takes none, or for the SAM module normal tokens.

    Raises:
        InputError: `data` does not fit the inputs.
    """
    name = subject.input_names[0]
    if data is not None:
        if data.suffix == ".npz":
            return array_samples("npz", arrays_in(data, subject.examples()))
        if subject.preprocessing is None:
            raise InputError(
                f"{data} is no .npz, and the network has no preprocessing to make inputs of images "
                "with. Give an .npz with an array for each input "
                f"({', '.join(subject.input_names)}), samples in dimension 0, or preprocessing."
            )
        return folder_samples(name, data, subject.preprocessing)
    if subject.preprocessing is not None:
        return synthetic_samples(name, BUILT_IN_SAMPLES, subject.preprocessing)
    if subject.own:
        return array_samples("example", subject.examples())
    return normal_samples(name, BUILT_IN_SAMPLES, *subject.examples()[name].shape[1:])


def arrays_in(path: Path, examples: Arrays) -> Arrays:
    """The arrays of the .npz at `path`, by input name, in the types of `examples`.

    Raises:
        InputError: it cannot be read, or its arrays are others than the inputs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give an .npz or a folder of images.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise InputError(
            f"{path} cannot be read as an .npz of plain arrays: it is damaged, of another format, "
            "or holds Python objects. Write it with numpy.savez."
        ) from None
    if set(found) != set(examples):
        raise InputError(
            f"{path} holds {', '.join(sorted(found)) or 'nothing'}; expected an array for each "
            f"input: {', '.join(examples)}."
        )
    return {
        name: fitted(found[name], like, f"{name} in {path}", "samples")
        for name, like in examples.items()
    }


def fitted(array: Array, like: Array, where: str, first: str) -> Array:
    """`array` in the type of `like`, whose dims it has but for the first, which is called `first`.

    Raises:
        InputError: another shape or kind; `where` says of what.
    """
    if array.shape[1:] != like.shape[1:] or array.ndim != like.ndim:
        expected = ", ".join([first, *map(str, like.shape[1:])])
        raise InputError(f"{where} has shape {array.shape}; expected ({expected}).")
    floats = like.dtype.kind == "f"  # integers would be pixels that nobody normalised
    if not np.can_cast(array.dtype, like.dtype, "same_kind") or floats != (array.dtype.kind == "f"):
        preprocessed = ", preprocessed as the model expects" if floats else ""
        raise InputError(f"{where} is {array.dtype}; expected {like.dtype}{preprocessed}.")
    return array.astype(like.dtype)
