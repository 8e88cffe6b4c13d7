"""An .npz of samples, read row by row: a validation set need not fit into memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from sam_deploy.errors import InputError
from sam_deploy.parity.fitting import check_fits
from sam_deploy.parity.samples import Numbered, Samples, rows_of
from sam_deploy.runner import Array, Arrays

LABELS = "labels"
_SUFFIX = ".npy"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# RuntimeError: encrypted; NotImplementedError is one, of an unknown compression.
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    by_columns: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def npz_samples(
    path: Path,
    examples: Arrays,
    *,
    num_classes: int | None = None,
    labelled: bool = True,
    rows: Sequence[int] | None = None,
) -> Samples:
    """The samples in the .npz at `path`: an array for each input, samples in dimension 0.

    They are given in the types of `examples`, arrays like the inputs. Of a classifier of
    `num_classes` it may also hold "labels", a class number for each sample, which are left alone
    where it is not to be `labelled`. `rows`, ascending, takes those alone.

    Raises:
        InputError: it cannot be read, its arrays are others than the inputs, or labels are no
            classes. While iterating: it is cut short.
    """
    headers = _headers(path)
    has_labels = num_classes is not None and LABELS in headers and LABELS not in examples
    if set(headers) - ({LABELS} if has_labels else set()) != set(examples):
        raise InputError(
            f"{path} holds {', '.join(sorted(headers)) or 'nothing'}; expected an array for each "
            f"input: {', '.join(examples)}."
        )
    for name, like in examples.items():
        check_fits(headers[name].shape, headers[name].dtype, like, f"{name} in {path}", "samples")
    count = rows_of({name: headers[name].shape[0] for name in examples})
    wanted = range(count) if rows is None else rows
    labels = None
    if has_labels and labelled:
        labels = _labels(path, headers[LABELS], count, num_classes)

    def make(start: int) -> Numbered:
        chosen = {row: number for number, row in enumerate(wanted) if number >= start}
        last = max(chosen, default=-1)
        for row, sample in enumerate(_rows(path, headers, list(examples))):
            if row > last:
                return
            if row in chosen:
                yield chosen[row], {n: a.astype(examples[n].dtype) for n, a in sample.items()}

    return Samples(
        "npz",
        len(wanted),
        make,
        None if labels is None else [int(labels[row]) for row in wanted],
        [f"row {row}" for row in wanted],
    )


def _headers(path: Path) -> dict[str, _Header]:
    """Shape and dtype of every array, nothing of it read."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; give an .npz or a folder of images.")
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for member in archive.infolist():
                if not member.filename.endswith(_SUFFIX):
                    raise ValueError("no array")
                with archive.open(member) as file:
                    header = _header(file)
                    if file.tell() + header.nbytes != member.file_size:
                        raise EOFError
                found[member.filename.removesuffix(_SUFFIX)] = header
            return found
    except _DAMAGED:
        raise InputError(_unreadable(path)) from None


def _header(file: IO[bytes]) -> _Header:
    shape, by_columns, dtype = _HEADERS[npy.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError("Python objects")
    return _Header(shape, dtype, bool(by_columns) and len(shape) > 1)


def _rows(path: Path, headers: Mapping[str, _Header], names: Sequence[str]) -> Iterator[Arrays]:
    """The rows of the arrays `names`, in step."""
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            sources = []
            for name in names:
                if headers[name].by_columns:  # rare, and not to be read in rows
                    sources.append(iter(np.load(path, allow_pickle=False)[name]))
                else:
                    file = stack.enter_context(archive.open(name + _SUFFIX))
                    _header(file)
                    sources.append(_streamed(file, headers[name]))
            for row in zip(*sources, strict=True):
                yield dict(zip(names, row, strict=True))
    except _DAMAGED:
        raise InputError(_unreadable(path)) from None


def _streamed(file: IO[bytes], header: _Header) -> Iterator[Array]:
    count, *shape = header.shape
    size = int(np.prod(shape)) * header.dtype.itemsize
    for _ in range(count):
        content = file.read(size)
        if len(content) < size:
            raise EOFError
        yield np.frombuffer(content, header.dtype).reshape(shape)


def _labels(path: Path, header: _Header, count: int, num_classes: int | None) -> Array:
    where, classes = f"{LABELS} in {path}", num_classes or 0
    if header.shape != (count,) or header.dtype.kind not in "iu":
        raise InputError(
            f"{where} is {header.dtype} {header.shape}; expected {count} class numbers."
        )
    labels = np.array([row[LABELS] for row in _rows(path, {LABELS: header}, [LABELS])])
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"{where} holds {labels.min()} to {labels.max()}; expected class numbers from 0 to "
            f"{classes - 1}."
        )
    return labels


def _unreadable(path: Path) -> str:
    return (
        f"{path} cannot be read as an .npz of plain arrays: it is damaged, of another format, or "
        "holds Python objects. Write it with numpy.savez."
    )
