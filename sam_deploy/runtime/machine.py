"""What this machine has for plans: a GPU, and members of the TensorRT family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sam_deploy.errors import MachineError
from sam_deploy.plans import FLAVOURS, Flavour
from sam_deploy.runtime.flavours import flavour_module
from sam_deploy.runtime.gpu import require_cuda


@dataclass(frozen=True)
class GpuInfo:
    """A GPU: its name, and its compute capability as a plan's passport writes it ("8.9")."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """`versions` are of the flavours that load here; `lacking` says why the others do not.

    `gpu` is the first that CUDA shows (CUDA_VISIBLE_DEVICES chooses); None where there is none,
    and `no_gpu` says why.
    """

    versions: dict[Flavour, str]
    gpu: GpuInfo | None
    lacking: dict[Flavour, str] = field(default_factory=dict)
    no_gpu: str = ""


def find_machine(flavours: Iterable[Flavour] = FLAVOURS) -> Machine:
    """Look for `flavours` (each is imported) and for a GPU. Having neither is a normal answer."""
    versions: dict[Flavour, str] = {}
    lacking: dict[Flavour, str] = {}
    for flavour in flavours:
        try:
            versions[flavour] = str(flavour_module(flavour).__version__)
        except MachineError as error:
            lacking[flavour] = str(error)
    try:
        return Machine(versions, find_gpu(), lacking)
    except MachineError as error:
        return Machine(versions, None, lacking, str(error))


def find_gpu() -> GpuInfo:
    """The first GPU that CUDA shows.

    Raises:
        MachineError: there is none, no driver, or cuda-core is not installed.
    """
    cuda = require_cuda()
    try:
        device, *_ = cuda.Device.get_all_devices()
        capability = device.compute_capability
        return GpuInfo(str(device.name), f"{capability.major}.{capability.minor}")
    except Exception as error:  # of the driver, of what looks for it, or of an empty list
        reason = (
            str(error).splitlines()[0] if not isinstance(error, ValueError) else "CUDA has none"
        )
        raise MachineError(f"this machine has no NVIDIA GPU or no driver: {reason}") from None
