"""The builder of a flavour, where this machine can have one."""

from __future__ import annotations

from typing import Any

from sam_deploy.errors import MachineError
from sam_deploy.gpu_info import find_gpu
from sam_deploy.plans import Flavour
from sam_deploy.tensorrt_family import Member, log_of, member


def require_builder(flavour: Flavour) -> Member:
    """The flavour, able to build on this machine.

    Raises:
        MachineError: as `member`; or TensorRT, which builds on a GPU for that GPU, has none here.
    """
    found = member(flavour)
    if flavour == "tensorrt":
        try:
            find_gpu()
        except MachineError as lacking:
            raise MachineError(
                f"{found.name} builds on the GPU that it builds for, and {lacking}. Build there "
                "with sam-export --rebuild, or take --engine tensorrt-rtx, which needs none."
            ) from None
    return found


def new_builder(found: Member) -> Any:
    """An IBuilder.

    Raises:
        MachineError: TensorRT gives none.
    """
    try:
        return found.trt.Builder(log_of(found).logger)
    except TypeError:  # pybind's word for a null pointer: TensorRT without a usable GPU
        raise MachineError(
            f"{found.name} cannot make a builder here: is the GPU's driver new enough?"
        ) from None
