"""The TensorRT family: which members are installed, and which of them can build here."""

from __future__ import annotations

import importlib
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from sam_deploy.engines.gpu import first_gpu
from sam_deploy.errors import MachineError
from sam_deploy.plans import Flavour

FULL_NAME: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_MODULE: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_OLDEST: dict[Flavour, tuple[int, int]] = {"tensorrt": (10, 13), "tensorrt-rtx": (1, 3)}


class Member(NamedTuple):
    """A member that imports: its module, its flavour, its version ("10.16.1.11")."""

    trt: Any
    flavour: Flavour
    version: str

    @property
    def name(self) -> str:
        """What a user calls it: "TensorRT-RTX 1.7.1.116"."""
        return f"{FULL_NAME[self.flavour]} {self.version}"


def installed() -> dict[Flavour, str]:
    """The version of each flavour whose package is here; none is imported, so it may yet fail."""
    packages = metadata.packages_distributions()
    return {
        flavour: metadata.version(packages[module][0])
        for flavour, module in _MODULE.items()
        if find_spec(module) is not None and module in packages
    }


def member(flavour: Flavour) -> Member:
    """The flavour, imported.

    Raises:
        MachineError: it is not installed, is too old, or does not import; says its reason.
    """
    name = FULL_NAME[flavour]
    remedy = f"Run: pip install 'sam-deploy[{flavour}]'"
    if find_spec(_MODULE[flavour]) is None:
        raise MachineError(f"{name} is not installed. {remedy}")
    try:
        trt = importlib.import_module(_MODULE[flavour])
    except Exception as error:  # its libraries are fetched and loaded there: anything can go wrong
        raise MachineError(f"{name} is installed and does not import: {error}. {remedy}") from None
    version = str(trt.__version__)
    oldest = _OLDEST[flavour]
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        needed = ".".join(map(str, oldest))
        raise MachineError(f"{name} {version} is too old: {needed} or later is needed. {remedy}")
    return Member(trt, flavour, version)


def require_builder(flavour: Flavour) -> Member:
    """The flavour, able to build on this machine.

    Raises:
        MachineError: as `member`; or TensorRT, which builds on a GPU for that GPU, has none here.
    """
    found = member(flavour)
    if flavour == "tensorrt" and first_gpu() is None:
        raise MachineError(
            f"{found.name} builds on the GPU that it builds for, and this machine has no NVIDIA "
            "GPU or no driver. Build there with sam-export --rebuild, or take --engine "
            "tensorrt-rtx, which needs none."
        )
    return found
