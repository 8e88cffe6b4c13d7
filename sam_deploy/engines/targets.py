"""The GPUs that a plan is built for, refused before anything is built where they cannot run it."""

from __future__ import annotations

from collections.abc import Sequence

from sam_deploy.errors import InputError, MachineError
from sam_deploy.gpu_info import find_gpu
from sam_deploy.recipe import Precision
from sam_deploy.tensorrt_family import FULL_NAME, Member

_FP8_FROM = (8, 9)


def target_capabilities(
    member: Member, asked: Sequence[str], precision: Precision
) -> tuple[list[str], str | None]:
    """The compute capabilities ("8.9") a plan will be for, and for TensorRT its GPU's name.

    TensorRT builds for the GPU it runs on, whatever is `asked`. TensorRT-RTX builds for what is
    asked, where nothing is for its default, and then none is listed. FP8 is never built for that,
    but for all that have it.

    Raises:
        InputError: a capability that TensorRT-RTX does not know, or that has no FP8.
        MachineError: TensorRT finds no GPU, or one without FP8.
    """
    if member.flavour == "tensorrt":
        gpu = find_gpu()
        if precision == "fp8" and not _has_fp8(gpu.compute_capability):
            raise MachineError(
                f"{gpu.name} is of compute capability {gpu.compute_capability} and has no FP8, "
                "which begins with 8.9. Take --int8."
            )
        return [gpu.compute_capability], gpu.name
    known = _known(member)
    unknown = [capability for capability in asked if capability not in known]
    if unknown:
        raise InputError(
            f"{member.name} does not build for compute capability {', '.join(unknown)}; it knows "
            f"{', '.join(known)}. For other GPUs take {FULL_NAME['tensorrt']}, on such a GPU."
        )
    lacking = [capability for capability in asked if not _has_fp8(capability)]
    if precision == "fp8" and lacking:
        raise InputError(
            f"GPUs of compute capability {', '.join(lacking)} have no FP8; it begins with 8.9. "
            "Take --int8 for them."
        )
    if precision == "fp8" and not asked:
        asked = [capability for capability in known if _has_fp8(capability)]
    return sorted(set(asked), key=_number), None


def _known(member: Member) -> list[str]:
    """What TensorRT-RTX builds for, in order: "7.5", "8.0" and so on."""
    numbers = [name[2:] for name in member.trt.ComputeCapability.__members__ if name[:2] == "SM"]
    return sorted((f"{number[:-1]}.{number[-1]}" for number in numbers), key=_number)


def _has_fp8(capability: str) -> bool:
    return _number(capability) >= _FP8_FROM


def _number(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)
