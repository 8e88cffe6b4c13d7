"""The GPU that TensorRT builds on, asked of the driver itself: a build needs no CUDA package."""

from __future__ import annotations

import ctypes
import sys
from typing import NamedTuple

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 256


class Gpu(NamedTuple):
    """Its name, and its compute capability ("8.9")."""

    name: str
    compute_capability: str


def first_gpu() -> Gpu | None:
    """The first that CUDA shows (CUDA_VISIBLE_DEVICES chooses); None without one or a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        device = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
            return None
    except (OSError, AttributeError):  # no driver, or a stand-in for one
        return None
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
