"""Arrays in memory that two processes see: written by one, read by the other, in turn."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from sam_deploy.runner import Array, Arrays

_ALIGNMENT_BYTES = 64  # of a cache line, and the widest that a CPU loads at once
_GROWTH_BYTES = 1 << 20


class Place(msgspec.Struct, array_like=True):
    """Where an array lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int


class Memory:
    """Shared memory behind the file descriptor `fd`; it grows and never shrinks."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None
        self._bytes = 0

    @classmethod
    def new(cls, name: str) -> Memory:
        """Memory of its own, to be passed on by its descriptor."""
        return cls(os.memfd_create(name))

    def put(self, arrays: Mapping[str, Sequence[Array]]) -> list[Place]:
        """Write `arrays`, over whatever there was before: of each its parts, one behind the other,
        which are alike but for their first size.
        """
        places, end = [], 0
        for name, parts in arrays.items():
            shape = parts[0].shape
            if len(parts) > 1:
                shape = (sum(len(part) for part in parts), *shape[1:])
            places.append(Place(name, parts[0].dtype.str, shape, end))
            nbytes = sum(part.nbytes for part in parts)
            end += -(-nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._hold(end)
        for place, parts in zip(places, arrays.values(), strict=True):
            view = self._view(place)
            if len(parts) == 1:
                view[...] = parts[0]
                continue
            start = 0
            for part in parts:
                view[start : start + len(part)] = part
                start += len(part)
        return places

    def views(self, places: Sequence[Place]) -> Arrays:
        """The arrays that the other process has put; they change with its next."""
        self._hold(max((p.offset_bytes + _nbytes(p) for p in places), default=0), grow=False)
        return {place.name: self._view(place) for place in places}

    def close(self) -> None:
        """Give it back, once no view of it is left."""
        self._map = None
        os.close(self.fd)

    def _hold(self, nbytes: int, *, grow: bool = True) -> None:
        if nbytes <= self._bytes:
            return
        if grow:
            nbytes = -(-nbytes // _GROWTH_BYTES) * _GROWTH_BYTES
            os.ftruncate(self.fd, nbytes)
        self._bytes = os.fstat(self.fd).st_size
        # not closed: views of the old one may still be read
        self._map = mmap.mmap(self.fd, self._bytes)

    def _view(self, place: Place) -> Array:
        if self._map is None:  # of nothing at all
            return np.empty(place.shape, place.dtype)
        count = math.prod(place.shape)
        flat = np.frombuffer(self._map, place.dtype, count, place.offset_bytes)
        return flat.reshape(place.shape)


def _nbytes(place: Place) -> int:
    return math.prod(place.shape) * np.dtype(place.dtype).itemsize
