"""ONNX in, plan and passport out: the one road for TensorRT 10, 11 and TensorRT-RTX."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sam_deploy.bundle.disk_full import told_if_full
from sam_deploy.bundle.files import sha256_of
from sam_deploy.bundle.interrupts import interrupts_held
from sam_deploy.engines.audit import audit_network
from sam_deploy.engines.builder import new_builder, require_builder
from sam_deploy.engines.building import PERCENT, built_plan, interruptible
from sam_deploy.engines.cache import timing_cache_path
from sam_deploy.engines.config import add_profile, builder_config
from sam_deploy.engines.monitor import Phases
from sam_deploy.engines.parsing import parsed_network
from sam_deploy.engines.targets import target_capabilities
from sam_deploy.engines.timing import use_timings
from sam_deploy.manifest import PrecisionReport
from sam_deploy.plans import Flavour, PlanInfo, PlanOptions, plan_file
from sam_deploy.progress import Progress
from sam_deploy.tensorrt_family import log_of


def plan_from_onnx(
    onnx_path: Path,
    folder: Path,
    flavour: Flavour,
    options: PlanOptions,
    precision: PrecisionReport,
    *,
    progress: Progress,
    cache: Path | None = None,
) -> PlanInfo:
    """Build the plan of `onnx_path` into `folder`/plans, and return its passport.

    `precision` says what the graph is; the parsed network is held against it first. `cache` is a
    folder for the builder's timings, by default `cache_folder()`. A failure or an interrupt leaves
    nothing in `folder`.

    Raises:
        InputError: the target GPUs are unknown to TensorRT-RTX, or have no FP8.
        CheckFailed: the graph has UINT8 in it, the parser or the builder refuses it, or the
            network is not in the precision asked for (PrecisionError).
        MachineError: the flavour cannot build here, or the disk is full.
    """
    member = require_builder(flavour)
    asked = options.compute_capabilities
    capabilities, gpu = target_capabilities(member, asked, precision.precision)
    if gpu and set(asked) - set(capabilities):
        progress.note(
            f"{member.name} builds for the GPU it runs on, {gpu} ({capabilities[0]}), and not for "
            f"{', '.join(asked)}: of those only TensorRT-RTX takes a choice"
        )
    timings = timing_cache_path(flavour, member.version, gpu, cache) if gpu else None
    begin = time.monotonic()
    with log_of(member).of_one_build() as said, progress.stage(flavour, PERCENT) as advance:

        def work(phases: Phases) -> _Built:
            builder = new_builder(member)
            network = parsed_network(builder, onnx_path, member, said)
            audit_network(network, precision)
            config = builder_config(builder, member, capabilities)
            dynamic = add_profile(builder, network, config, options.profile)
            notes: list[str] = []
            keep = use_timings(config, timings, notes) if timings else None
            plan = built_plan(builder, network, config, member, said, phases)
            if keep:
                keep()
            return _Built(plan, dynamic, config.builder_optimization_level, notes)

        built = interruptible(work, advance)
    for note in built.notes:
        progress.note(note)
    file = plan_file(flavour, member.version, capabilities)
    _write(folder, file, built.plan)
    return PlanInfo(
        file=file,
        flavour=flavour,
        version=member.version,
        compute_capabilities=capabilities,
        gpu=gpu,
        profile=options.profile if built.dynamic else None,
        options={
            "strongly_typed": "true",
            "tf32": "false",
            "builder_optimization_level": str(built.level),
        },
        onnx_sha256=sha256_of(onnx_path),
        bytes=built.plan.nbytes,
        build_s=round(time.monotonic() - begin, 3),
    )


class _Built(NamedTuple):
    plan: Any
    dynamic: bool
    level: int
    notes: list[str]


def _write(folder: Path, file: str, plan: Any) -> None:
    """Write `plan` to `file` in `folder`; whatever comes between leaves nothing of it."""
    path = folder / file
    partial = path.with_name(f".{path.name}.partial")
    try:
        with interrupts_held(), told_if_full(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(plan)
            partial.replace(path)
    except BaseException:
        with interrupts_held(), suppress(OSError):
            partial.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # unless other plans stand in it
        raise
