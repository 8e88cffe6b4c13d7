"""The artefacts of a bundle that run on this machine, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sam_deploy.bundle import MODEL
from sam_deploy.errors import BundleError, MachineError
from sam_deploy.manifest import Manifest
from sam_deploy.plans import FLAVOURS, BatchProfile
from sam_deploy.runner import Runner
from sam_deploy.runtime import TensorRTRunner, find_machine
from sam_deploy.runtime.backends import backend_name
from sam_deploy.runtime.onnx_backends import allows_bf16, installed_providers, start_onnx
from sam_deploy.runtime.openvino import OPENVINO
from sam_deploy.runtime.passport import misfit, stale
from sam_deploy.runtime.plan_file import read_plan
from sam_deploy.verification.result import ArtefactResult, Skipped

_ONNXRUNTIME = "onnxruntime"
_LACKING = {
    "cuda": "ONNX Runtime is not the one for CUDA: install sam-deploy[cuda]",
    "openvino": "it is not installed: install sam-deploy[openvino]",
}


@dataclass(frozen=True)
class Contestant:
    """An artefact on a backend that runs here. `profile` are the batch sizes that it takes."""

    artefact: str
    runner: Runner
    profile: BatchProfile | None = None

    def close(self) -> None:
        """Free what it holds on a GPU."""
        if isinstance(self.runner, TensorRTRunner):
            self.runner.close()


@dataclass(frozen=True)
class Field:
    """All artefacts: those that run, those that do not load though they should, and the others."""

    running: list[Contestant]
    failed: list[ArtefactResult]
    skipped: list[Skipped]

    def require(self, flavours: Iterable[str]) -> None:
        """Refuse to judge without the backends `flavours`.

        Raises:
            MachineError: one of them does not run here; says why.
        """
        there = [*(one.runner.backend for one in self.running), *(f.backend for f in self.failed)]
        for flavour in flavours:
            if flavour in map(backend_name, there):
                continue
            reasons = [one.reason for one in self.skipped if flavour == backend_name(one.backend)]
            lacking = _LACKING.get(flavour, "the bundle has no plan for it")
            raise MachineError(
                f"{flavour} is required and does not run here: {'; '.join(reasons) or lacking}"
            )


def contestants(folder: Path, manifest: Manifest) -> Field:
    """What of the bundle in `folder` runs here: its ONNX on each provider, its plans."""
    found = Field([], [], [])
    _add_onnx(folder, manifest, found)
    _add_plans(folder, manifest, found)
    return found


def _add_onnx(folder: Path, manifest: Manifest, found: Field) -> None:
    try:
        providers = installed_providers()
    except MachineError as error:
        found.skipped.append(Skipped(artefact=MODEL, backend=_ONNXRUNTIME, reason=str(error)))
        return
    for provider in providers:
        try:
            # The reference runs in turn with it: waiting threads must not take its cores.
            bf16 = allows_bf16(manifest.recipe)
            runner = start_onnx(folder / MODEL, provider, spinning=False, bf16=bf16)
            found.running.append(Contestant(MODEL, runner))
        except MachineError as error:
            backend = "openvino" if provider == OPENVINO else f"{_ONNXRUNTIME} {provider}"
            found.skipped.append(Skipped(artefact=MODEL, backend=backend, reason=str(error)))
        except BundleError as error:
            found.failed.append(
                ArtefactResult(
                    artefact=MODEL, backend=_ONNXRUNTIME, parity=None, failures=[str(error)]
                )
            )


def _add_plans(folder: Path, manifest: Manifest, found: Field) -> None:
    if not manifest.plans:
        return
    flavours = [f for f in FLAVOURS if any(plan.flavour == f for plan in manifest.plans)]
    machine = find_machine(flavours)
    for plan in manifest.plans:
        backend = f"{plan.flavour} {plan.version}"
        reason = stale(plan, manifest) or misfit(plan, machine)
        if reason is not None:  # what a plan is not for is no failure; a stale one is, elsewhere
            found.skipped.append(Skipped(artefact=plan.file, backend=backend, reason=reason))
            continue
        try:
            runner = TensorRTRunner(
                read_plan(folder, manifest, plan), plan, manifest.inputs, manifest.outputs
            )
            found.running.append(Contestant(plan.file, runner, plan.profile))
        except (BundleError, MachineError) as error:
            found.failed.append(
                ArtefactResult(
                    artefact=plan.file, backend=plan.flavour, parity=None, failures=[str(error)]
                )
            )
