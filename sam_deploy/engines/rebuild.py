"""The plans that a bundle lacks for this machine, built from its own ONNX; without torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sam_deploy.bundle import MODEL, check_target, file_infos, publish, read_bundle, staged
from sam_deploy.engines.choosing import chosen
from sam_deploy.engines.plan_from_onnx import plan_from_onnx
from sam_deploy.engines.targets import target_capabilities
from sam_deploy.errors import BundleError, InputError, MachineError
from sam_deploy.manifest import Manifest
from sam_deploy.plans import Flavour, PlanInfo, PlanOptions, plan_file
from sam_deploy.progress import Progress
from sam_deploy.tensorrt_family import member


@dataclass(frozen=True)
class Rebuilt:
    """The bundle's manifest as it is now; `built` and `kept` are plans for this machine.

    `skipped` says of each flavour that "auto" left out, why.
    """

    manifest: Manifest
    built: list[PlanInfo]
    kept: list[PlanInfo]
    skipped: dict[Flavour, str] = field(default_factory=dict)


def rebuild(
    bundle: Path,
    options: PlanOptions | None = None,
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Rebuilt:
    """Add to `bundle` the plans of `options` that it lacks; by default what its recipe says.

    A plan of the same flavour, version and GPUs is kept if it is of this ONNX and this profile;
    plans for other machines stay. The bundle is replaced whole or not at all.

    Raises:
        BundleError: no bundle, or a damaged one.
        InputError: it cannot be written to, or is quantized for CPUs; else as `plan_from_onnx`.
        MachineError: nothing of the family can build here, or the disk is full.
        CheckFailed: as `plan_from_onnx`.
    """
    progress = progress or Progress()
    manifest = read_bundle(bundle)
    if manifest.recipe.is_for_cpu:
        raise InputError(
            f"{bundle} is quantized for CPUs, and TensorRT refuses that graph. Export its model "
            "with --target tensorrt."
        )
    check_target(bundle, force=True)
    if options is None:
        options = manifest.recipe.plans
        if options.engines == ["none"]:  # of the export; who rebuilds wants plans
            options = msgspec.structs.replace(options, engines=["auto"])
    flavours, skipped = chosen(
        options.engines,
        precision=manifest.precision.precision,
        compute_capabilities=options.compute_capabilities,
    )
    if not flavours:
        raise MachineError("no plan can be built here:\n  " + "\n  ".join(skipped.values()))
    kept = [plan for flavour in flavours for plan in _present(manifest, flavour, options)]
    missing = [flavour for flavour in flavours if flavour not in {plan.flavour for plan in kept}]
    if not missing:
        return Rebuilt(manifest, [], kept, skipped)
    with staged(bundle) as folder:
        for file in manifest.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / file, folder / file)
        built = [
            plan_from_onnx(
                folder / MODEL,
                folder,
                flavour,
                options,
                manifest.precision,
                progress=progress,
                cache=cache,
            )
            for flavour in missing
        ]
        made = _with_plans(manifest, built, folder, bundle)
        publish(folder, bundle, made, force=True)
    return Rebuilt(made, built, kept, skipped)


def _present(manifest: Manifest, flavour: Flavour, options: PlanOptions) -> Sequence[PlanInfo]:
    """The plan that would be built, if it is there already."""
    found = member(flavour)
    precision = manifest.precision.precision
    capabilities, gpu = target_capabilities(found, options.compute_capabilities, precision)
    file = plan_file(flavour, found.version, capabilities)
    return [
        plan
        for plan in manifest.plans
        if plan.file == file
        and plan.onnx_sha256 == manifest.files[MODEL].sha256
        and plan.profile in (None, options.profile)
        and plan.gpu == gpu
    ]


def _with_plans(
    manifest: Manifest, built: Sequence[PlanInfo], folder: Path, bundle: Path
) -> Manifest:
    """The manifest of the staged `folder`, whose other files must be what they were."""
    new = {plan.file for plan in built}
    files = file_infos(folder)
    if any(files[file] != info for file, info in manifest.files.items() if file not in new):
        raise BundleError(f"{bundle} changed while it was copied. Nothing was rebuilt; try again.")
    plans = [plan for plan in manifest.plans if plan.file not in new] + list(built)
    return msgspec.structs.replace(manifest, plans=plans, files=files)
