"""Which plan of a bundle this machine can run, told from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from sam_deploy.bundle import MODEL
from sam_deploy.errors import MachineError
from sam_deploy.manifest import Manifest
from sam_deploy.plans import Flavour, PlanInfo
from sam_deploy.runtime.machine import Machine
from sam_deploy.tensorrt_family import FULL_NAME

_DEFAULT = "SM80, SM86, SM89, SM120 and later"


def misfit(plan: PlanInfo, machine: Machine) -> str | None:
    """Why `plan` does not run on `machine`, as a sentence without its remedy; None where it fits.

    Plans of TensorRT and of TensorRT-RTX run on the very version that built them, and on the
    compute capabilities that they were built for.
    """
    version = machine.versions.get(plan.flavour)
    if version is None:
        return machine.lacking.get(plan.flavour, f"{FULL_NAME[plan.flavour]} is not installed")
    if machine.gpu is None:
        return machine.no_gpu or "this machine has no NVIDIA GPU or no driver"
    here = machine.gpu.compute_capability
    by_default = plan.flavour == "tensorrt-rtx" and not plan.compute_capabilities
    fits = _in_default(here) if by_default else here in plan.compute_capabilities
    if version == plan.version and fits:
        return None
    targets = _DEFAULT if by_default else _sm(plan.compute_capabilities)
    return (
        f"built for {FULL_NAME[plan.flavour]} {plan.version} on {targets}, "
        f"this machine has {FULL_NAME[plan.flavour]} {version} on {_sm([here])}"
    )


def fitting_plan(manifest: Manifest, flavour: Flavour, machine: Machine, folder: Path) -> PlanInfo:
    """The first plan of `flavour` in the bundle `folder` that `machine` can run.

    Raises:
        MachineError: there is none; says why for each, and what to do.
    """
    if flavour in machine.lacking:
        raise MachineError(machine.lacking[flavour])
    if machine.gpu is None:
        raise MachineError(machine.no_gpu)
    here = machine.gpu.compute_capability
    rebuild = f"run `sam-export --rebuild {folder}`"
    if flavour == "tensorrt-rtx" and not _in_default(here):
        rebuild = f"run `sam-export --rebuild {folder} --compute-capability {here}`"
    plans = [plan for plan in manifest.plans if plan.flavour == flavour]
    if not plans:
        raise MachineError(f"{folder} has no plan for {FULL_NAME[flavour]}: {rebuild}")
    reasons = {plan.file: stale(plan, manifest) or misfit(plan, machine) for plan in plans}
    for plan in plans:
        if reasons[plan.file] is None:
            return plan
    said = "; ".join(f"{file} was {reason}" for file, reason in reasons.items())
    raise MachineError(f"{said}: {rebuild}")


def stale(plan: PlanInfo, manifest: Manifest) -> str | None:
    """Why `plan` does not belong to this bundle's ONNX."""
    if plan.onnx_sha256 != manifest.files[MODEL].sha256:
        return f"built from another {MODEL} than the bundle's"
    if plan.bytes != manifest.files[plan.file].bytes:
        return f"built with {plan.bytes} bytes, the bundle lists {manifest.files[plan.file].bytes}"
    return None


def _in_default(capability: str) -> bool:
    """Whether TensorRT-RTX builds for it unasked; its manual leaves out Turing, 9.0 and 10.x."""
    return capability in ("8.0", "8.6", "8.9") or float(capability) >= 12


def _sm(capabilities: list[str]) -> str:
    return ", ".join(f"SM{c.replace('.', '')}" for c in capabilities) or "no GPU"
