"""Bundle in, verdict out: every artefact that runs here against the model that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.errors import CheckFailed
from sam_deploy.parity import Samples
from sam_deploy.parity.crash import check_loads
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.progress import Progress
from sam_deploy.recipe import Tolerances
from sam_deploy.reference import Subject
from sam_deploy.verification.asked import Asked, held_to
from sam_deploy.verification.bundle_reference import bundle_reference
from sam_deploy.verification.contestants import Contestant, Field, contestants
from sam_deploy.verification.drift import drift_checks
from sam_deploy.verification.held import held_artefacts
from sam_deploy.verification.overflow import overflow_check
from sam_deploy.verification.receipt import read_receipt
from sam_deploy.verification.result import ArtefactResult, Check, ParityResult
from sam_deploy.verification.structure import structure_checks
from sam_deploy.verification.timing import measured_latency

_LOADS = "loads"


def verify(
    bundle: Path, asked: Asked | None = None, progress: Progress | None = None
) -> ParityResult:
    """Hold every artefact of the bundle in the folder `bundle` that runs on this machine against
    the untouched FP32 model.

    A bundle that is whole and wrong gives a result that did not pass.

    Raises:
        BundleError: not a bundle, damaged or foreign.
        InputError: no weights or others than the manifest names, data that does not fit, or
            tolerances that are looser than the recipe's.
        MachineError: a backend that is required does not run here.
    """
    asked, progress = asked or Asked(), progress or Progress()
    manifest = read_bundle(bundle)
    limits = held_to(manifest.recipe.tolerances, asked)
    receipt = None if asked.against is None else read_receipt(asked.against)
    with progress.stage("load"):
        subject = bundle_reference(manifest, asked)
        samples = samples_for(subject, asked.data, labels=asked.labels, limit=asked.limit)
        crash = _crash(bundle, subject)
        field = contestants(bundle, manifest) if crash is None else Field([], [], [])
    with _closing(field.running):
        field.require(asked.require if crash is None else ())
        checks = [crash] if crash is not None else structure_checks(bundle, manifest, subject)
        results = held_artefacts(
            bundle, manifest, subject, samples, field.running, limits, asked, progress
        )
        if crash is None:
            overflow = overflow_check(bundle, manifest, samples, progress)
            checks += [overflow] if overflow is not None else []
        latency = None
        if asked.latency or receipt is not None:
            latency = measured_latency(bundle, manifest, subject, progress)
    artefacts = [*field.failed, *results]
    failed = any(c.passed is False for c in checks) or any(a.failures for a in artefacts)
    result = ParityResult(
        passed=bool(artefacts) and not failed,
        bundle=str(bundle),
        name=manifest.name,
        model=manifest.recipe.model,
        precision=manifest.recipe.precision,
        weights_sha256=manifest.weights.sha256,
        data=samples.kind if asked.data is None else str(asked.data),
        samples=max((a.parity.samples for a in artefacts if a.parity), default=0),
        labelled=samples.labels is not None,
        tolerances=limits,
        checks=checks,
        artefacts=artefacts,
        skipped=field.skipped,
        latency=latency,
        notes=[*_notes(samples, artefacts, limits), *samples.left_out()],
    )
    for text in result.notes:
        progress.note(text)
    if receipt is None:
        return result
    moved = drift_checks(receipt, result, manifest)
    passed = result.passed and all(check.passed is not False for check in moved)
    return msgspec.structs.replace(result, checks=[*checks, *moved], passed=passed)


def _crash(bundle: Path, subject: Subject) -> Check | None:
    """Of what we wrote ourselves the graphs are known; another one may crash ONNX Runtime."""
    if not subject.own:
        return None
    try:
        check_loads(bundle / MODEL)
    except CheckFailed as failure:
        return Check(name=_LOADS, passed=False, detail=str(failure))
    return None


@contextmanager
def _closing(running: Sequence[Contestant]) -> Iterator[None]:
    try:
        yield
    finally:
        for contestant in running:
            contestant.close()


def _notes(
    samples: Samples, artefacts: Sequence[ArtefactResult], limits: Tolerances
) -> Iterator[str]:
    """What whoever reads the verdict should know of what it rests on."""
    if samples.kind in ("synthetic", "seeded normal", "example"):
        yield (
            "measured on built-in samples, not on your images: give --data with images like those "
            "in production, in a folder for each class where their classes are known."
        )
    if samples.count == 1:
        yield "a single sample: an artefact that ignores its input would pass. Give more."
    for result in artefacts:
        accuracy = result.parity.accuracy if result.parity else None
        if accuracy is not None and accuracy.top1_drop <= limits.top1_drop:
            upper = accuracy.top1_interval[1]
            if upper > max(limits.top1_drop, 0.05):
                yield (
                    f"{result.artefact} on {result.backend}: {accuracy.samples} labelled samples "
                    f"cannot tell a drop of {limits.top1_drop:g} points: it may be up to "
                    f"{upper:.2f}. Give more to be sure."
                )
