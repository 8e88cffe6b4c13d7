"""The ways to run a bundle, best first, and how each is started."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sam_deploy.bundle import MODEL, read_manifest
from sam_deploy.errors import BundleError, MachineError
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.plans import BatchProfile, Flavour
from sam_deploy.runtime.described import Described
from sam_deploy.runtime.machine import find_machine
from sam_deploy.runtime.onnx_backends import allows_bf16
from sam_deploy.runtime.onnx_contexts import OnnxContexts
from sam_deploy.runtime.onnx_runner import CPU, CUDA, require_onnxruntime
from sam_deploy.runtime.openvino import OPENVINO
from sam_deploy.runtime.passport import fitting_plan
from sam_deploy.runtime.plan_file import read_plan
from sam_deploy.runtime.runtime_cache import runtime_cache_path
from sam_deploy.runtime.sharing import shared_runner
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner
from sam_deploy.tensorrt_family import FULL_NAME

BACKENDS = ("tensorrt", "tensorrt-rtx", "cuda", "openvino", "cpu")
"""In the order of preference; the last three are the ONNX, and of the last two the faster."""
_PLANS: dict[str, Flavour] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
_ON_CPU = ("openvino", "cpu")
_PROVIDERS = {"cuda": CUDA, "openvino": OPENVINO, "cpu": CPU}


def backend_name(backend: str) -> str:
    """What `require` calls the backend that reports call `backend`: "tensorrt" for "tensorrt 11.4",
    "cpu" for "onnxruntime CPUExecutionProvider" and where ONNX Runtime itself is lacking.
    """
    first, _, provider = backend.partition(" ")
    names = {known: name for name, known in _PROVIDERS.items()}
    return names.get(provider, "cpu") if first == "onnxruntime" else first


class Started(NamedTuple):
    """A backend with the bundle in it. `profile` are the batches that a plan takes."""

    runner: OnnxContexts | TensorRTRunner
    artefact: str
    profile: BatchProfile | None


def start(name: str, folder: Path, manifest: Manifest, *, contexts: int, threads: int) -> Started:
    """Start the backend `name` on the bundle in `folder`, whose files were checked.

    Raises:
        MachineError: what it needs is missing, or no plan fits; says what to do.
        BundleError: a plan in another's place, or a graph that is not the manifest's.
    """
    if manifest.recipe.is_for_cpu and name not in _ON_CPU:
        raise MachineError("it is quantized for CPUs; for a GPU export it with --target tensorrt")
    if name in _PLANS:
        return _with_plan(folder, manifest, _PLANS[name], contexts)
    provider = _PROVIDERS[name]
    if provider == CUDA and CUDA not in require_onnxruntime().get_available_providers():
        raise MachineError(
            "the onnxruntime installed here is not the one for CUDA: pip install 'sam-deploy[cuda]'"
        )
    model, bf16 = folder / MODEL, allows_bf16(manifest.recipe)
    streams = contexts if provider == OPENVINO else 1
    runner = shared_runner(
        model, manifest.files[MODEL].sha256, provider, threads, streams=streams, bf16=bf16
    )
    if read_manifest(folder) != manifest:
        raise BundleError(f"{folder} was replaced while it was loaded. Load it again.")
    for declared, found in ((manifest.inputs, runner.inputs), (manifest.outputs, runner.outputs)):
        if len(declared) != len(found) or not all(map(Described.is_as, found, declared)):
            raise BundleError(
                f"{model} has {_listed(found)}, its manifest declares "
                f"{_listed(declared)}. Export it again."
            )
    return Started(OnnxContexts(runner, contexts), MODEL, None)


def _with_plan(folder: Path, manifest: Manifest, flavour: Flavour, contexts: int) -> Started:
    """Everything that can be told from the manifest comes before a byte of the plan."""
    if not any(plan.flavour == flavour for plan in manifest.plans):
        raise MachineError(
            f"{folder} has no plan for {FULL_NAME[flavour]}: run `sam-export --rebuild {folder}` "
            "on a machine that has it"
        )
    machine = find_machine([flavour])
    plan = fitting_plan(manifest, flavour, machine, folder)
    assert machine.gpu is not None
    sha256 = manifest.files[plan.file].sha256
    runner = TensorRTRunner(
        read_plan(folder, manifest, plan),
        plan,
        manifest.inputs,
        manifest.outputs,
        contexts=contexts,
        cache=runtime_cache_path(flavour, plan.version, machine.gpu.name, sha256),
    )
    return Started(runner, plan.file, plan.profile)


def _listed(tensors: Iterable[Described | TensorSpec]) -> str:
    return "; ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.dims))})" for t in tensors)
