"""Memory for one input or output, on the GPU and page-locked beside it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from sam_deploy.errors import MachineError
from sam_deploy.runner import Array
from sam_deploy.runtime.gpu import Buffer, Gpu, Stream


class Staging:
    """Grows to the largest array that it has held, and stays where it is until it grows."""

    def __init__(self, gpu: Gpu, stream: Stream) -> None:
        self._gpu = gpu
        self._stream = stream
        self._device: Buffer = None
        self._host: Buffer = None
        self._bytes = np.empty(0, np.uint8)

    def fit(self, nbytes: int) -> int:
        """The address on the GPU of at least `nbytes`; what stood there may be lost."""
        if nbytes > len(self._bytes):
            self.close()
            self._device = self._gpu.allocate(nbytes, self._stream)
            self._host, self._bytes = self._gpu.pinned(nbytes)
        return int(self._device.handle)

    def put(self, x: Array) -> int:
        """Copy the contiguous `x` to the GPU, in the stream's order; returns the address there."""
        address = self.fit(x.nbytes)
        self._bytes[: x.nbytes] = x.reshape(-1).view(np.uint8)
        self._gpu.copy(address, int(self._host.handle), x.nbytes, self._stream)
        return address

    def fetch(self, nbytes: int) -> None:
        """Begin to copy the first `nbytes` from the GPU; they are there once the stream is done."""
        self._gpu.copy(int(self._host.handle), int(self._device.handle), nbytes, self._stream)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """What was fetched, as an array of its own."""
        nbytes = math.prod(shape) * dtype.itemsize
        return self._bytes[:nbytes].copy().view(dtype).reshape(shape)

    def close(self) -> None:
        """Free both; it is usable again afterwards."""
        self._bytes = np.empty(0, np.uint8)
        for buffer in (self._device, self._host):
            if buffer is not None:
                with suppress(MachineError):
                    self._gpu.free(buffer)
        self._device = self._host = None
