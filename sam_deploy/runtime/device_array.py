"""An output that stays on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam_deploy.runtime.gpu import Buffer


class DeviceArray:
    """An array on the GPU that any library takes without a copy: `torch.from_dlpack(array)`.

    `shape` and `dtype` are numpy's; it is contiguous and complete, on every stream. The memory is
    free when the last that uses it is gone: keep one until the work that reads it is done.
    """

    def __init__(self, buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._buffer = buffer

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype} {self.shape}>"

    def __dlpack__(self, **options: Any) -> Any:
        """The DLPack capsule; `options` as the protocol has them."""
        from cuda.core.utils import StridedMemoryView

        view = StridedMemoryView.from_buffer(self._buffer, self.shape, dtype=self.dtype)
        return view.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's kind and number of the device."""
        kind, number = self._buffer.__dlpack_device__()
        return int(kind), int(number)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The CUDA array interface, version 3; without a stream, since the array is complete."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (int(self._buffer.handle), False),
            "strides": None,
            "stream": None,
            "version": 3,
        }
