"""A member of the TensorRT family, imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

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
        trt = import_module(_MODULE[flavour])
    except Exception as error:  # its libraries are fetched and loaded there: anything can go wrong
        raise MachineError(f"{name} is installed and does not import: {error}. {remedy}") from None
    version = str(trt.__version__)
    oldest = _OLDEST[flavour]
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        needed = ".".join(map(str, oldest))
        raise MachineError(f"{name} {version} is too old: {needed} or later is needed. {remedy}")
    return Member(trt, flavour, version)
