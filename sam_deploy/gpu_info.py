"""The GPU of this machine, asked of the driver itself: to know it takes no CUDA package."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple

from sam_deploy.errors import MachineError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 256


class GpuInfo(NamedTuple):
    """A GPU: its name, and its compute capability as a plan's passport writes it ("8.9")."""

    name: str
    compute_capability: str


def find_gpu() -> GpuInfo:
    """The first that CUDA shows; CUDA_VISIBLE_DEVICES chooses which that is.

    Raises:
        MachineError: there is none, or no driver; says the driver's reason.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return _first(driver)
    except (OSError, AttributeError) as error:  # no driver, one that fails, or a stand-in for one
        raise MachineError(f"this machine has no NVIDIA GPU or no driver: {error}") from None


def _first(driver: Any) -> GpuInfo:
    def call(function: str, *arguments: Any) -> None:
        if error := getattr(driver, function)(*arguments):
            raise OSError(_said(driver, error))

    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, _NAME_BYTES, device)
    call("cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return GpuInfo(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def _said(driver: Any, error: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(error, ctypes.byref(text))
    return (text.value or b"").decode(errors="replace") or f"CUDA error {error}"
