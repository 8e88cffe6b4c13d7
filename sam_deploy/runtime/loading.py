"""A bundle on disk becomes an engine, on the first backend that this machine can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from sam_deploy.bundle import MODEL, read_bundle, read_manifest
from sam_deploy.errors import BundleError, InputError, MachineError, nearest
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.plans import Flavour
from sam_deploy.runtime.engine import Engine
from sam_deploy.runtime.machine import find_machine
from sam_deploy.runtime.onnx_runner import CPU, Described, OnnxRunner
from sam_deploy.runtime.passport import fitting_plan
from sam_deploy.runtime.plan_file import read_plan
from sam_deploy.runtime.runtime_cache import runtime_cache_path
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner

ONNXRUNTIME = "onnxruntime"
BACKENDS = (ONNXRUNTIME, *get_args(Flavour))


def load(
    path: str | Path,
    backend: str | Sequence[str] = ONNXRUNTIME,
    providers: Sequence[str] = (CPU,),
    *,
    contexts: int = 1,
) -> Engine:
    """Load the bundle in the folder `path`; every file is verified first.

    `backend` is "onnxruntime", "tensorrt" or "tensorrt-rtx", or several in the order of preference:
    the first that fits this machine runs, and the engine's `passed_over` says why those before it
    do not. With one name nothing else is tried.

    `providers` are ONNX Runtime's, the first of which must start. `contexts` is how many threads a
    plan serves at once; each takes memory on the GPU of its own.

    Raises:
        InputError: an unknown backend, or none; `contexts` is below 1.
        BundleError: not a bundle, damaged, of a newer schema, or a plan in another's place.
        MachineError: what a backend needs is missing, or no plan fits; says what to do.
    """
    wanted = [backend] if isinstance(backend, str) else list(backend)
    for name in wanted:
        if name not in BACKENDS:
            raise InputError(
                f"unknown backend {name!r}; known are {', '.join(BACKENDS)}."
                + nearest(str(name), BACKENDS)
            )
    if not wanted:
        raise InputError(f"no backend; expected one or more of {', '.join(BACKENDS)}.")
    folder = Path(path)
    manifest = read_bundle(folder)
    passed_over: dict[str, str] = {}
    for name in wanted:
        try:
            if name == ONNXRUNTIME:
                return Engine(
                    manifest, _onnx_runner(folder, manifest, providers), passed_over=passed_over
                )
            return _with_plan(folder, manifest, name, contexts, passed_over)
        except MachineError as error:
            if len(wanted) == 1:
                raise
            passed_over[name] = str(error)
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in passed_over.items())
    raise MachineError(f"nothing that was asked for runs {folder} here:{reasons}")


def _with_plan(
    folder: Path, manifest: Manifest, name: str, contexts: int, passed_over: dict[str, str]
) -> Engine:
    """Everything that can be told from the manifest comes before a byte of the plan."""
    flavour: Flavour = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    machine = find_machine([flavour])
    plan = fitting_plan(manifest, flavour, machine, folder)
    assert machine.gpu is not None
    runner = TensorRTRunner(
        read_plan(folder, manifest, plan),
        plan,
        manifest.inputs,
        manifest.outputs,
        contexts=contexts,
        cache=runtime_cache_path(
            flavour, plan.version, machine.gpu.name, manifest.files[plan.file].sha256
        ),
    )
    return Engine(manifest, runner, profile=plan.profile, passed_over=passed_over)


def _onnx_runner(folder: Path, manifest: Manifest, providers: Sequence[str]) -> OnnxRunner:
    runner = OnnxRunner(folder / MODEL, providers)
    if read_manifest(folder) != manifest:
        raise BundleError(f"{folder} was replaced while it was loaded. Load it again.")
    for declared, found in (
        (manifest.inputs, runner.inputs),
        (manifest.outputs, runner.outputs),
    ):
        if [(spec.name, spec.dtype, spec.dims) for spec in declared] != found:
            raise BundleError(
                f"{folder / MODEL} has {_listed(found)}, its manifest declares "
                f"{_listed(declared)}. Export it again."
            )
    return runner


def _listed(tensors: Iterable[Described | TensorSpec]) -> str:
    return "; ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.dims))})" for t in tensors)
