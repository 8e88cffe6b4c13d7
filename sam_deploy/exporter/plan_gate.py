"""The parity gate of plans: each that this machine can run, against the untouched model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sam_deploy.errors import CheckFailed, MachineError
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity import Samples
from sam_deploy.parity.of_subject import subject_parity
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import PlanInfo
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.runtime.machine import find_machine
from sam_deploy.runtime.passport import misfit
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner


def hold_plans(
    plans: Sequence[PlanInfo],
    subject: Subject,
    recipe: Recipe,
    samples: Samples,
    specs: tuple[list[TensorSpec], list[TensorSpec]],
    folder: Path,
    progress: Progress,
) -> list[ParityReport]:
    """Hold every plan in `folder` that runs here against `subject`; `specs` are inputs and outputs.

    A plan without a report has been built and audited, and has not run.

    Raises:
        CheckFailed: a plan does not run, or breaks a tolerance.
    """
    if not plans:
        return []
    machine = find_machine([plan.flavour for plan in plans])
    if machine.gpu is None:
        return []
    reports = []
    for plan in plans:
        if misfit(plan, machine) is not None:
            continue
        with progress.stage("parity", samples.count) as advance:
            try:
                runner = TensorRTRunner((folder / plan.file).read_bytes(), plan, *specs)
            except MachineError as error:
                raise CheckFailed(f"{plan.file} does not load: {error}") from None
            try:
                report = subject_parity(
                    plan.file,
                    runner,
                    subject,
                    recipe,
                    samples,
                    specs,
                    profile=plan.profile,
                    progress=advance,
                )
            finally:
                runner.close()
        if not report.passed:
            reasons = "\n  ".join(report.failures)
            raise CheckFailed(f"{plan.file} is not close enough to PyTorch:\n  {reasons}")
        reports.append(report)
    return reports
