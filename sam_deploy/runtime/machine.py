"""What this machine has for plans: a GPU, and members of the TensorRT family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sam_deploy.errors import MachineError
from sam_deploy.gpu_info import GpuInfo, find_gpu
from sam_deploy.plans import FLAVOURS, Flavour
from sam_deploy.runtime.gpu import require_cuda
from sam_deploy.tensorrt_family import member


@dataclass(frozen=True)
class Machine:
    """`versions` are of the flavours that load here; `lacking` says why the others do not.

    `gpu` is the first that CUDA shows. It is None where there is none, or where cuda-core, which
    runs plans on it, is not installed; `no_gpu` says which.
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
            versions[flavour] = member(flavour).version
        except MachineError as error:
            lacking[flavour] = str(error)
    try:
        require_cuda()
        return Machine(versions, find_gpu(), lacking)
    except MachineError as error:
        return Machine(versions, None, lacking, str(error))
