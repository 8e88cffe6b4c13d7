"""Bundle in, verdict out: every artefact that runs here against the model that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.errors import BundleError, CheckFailed, SamDeployError
from sam_deploy.manifest import Manifest
from sam_deploy.parity import Samples
from sam_deploy.parity.crash import check_loads
from sam_deploy.parity.samples import in_utf8
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.progress import Progress
from sam_deploy.reference import Subject
from sam_deploy.verification.asked import Asked, check_labels, held_to
from sam_deploy.verification.bundle_reference import bundle_reference
from sam_deploy.verification.contestants import Contestant, Field, contestants
from sam_deploy.verification.drift import check_its_own, drift_checks
from sam_deploy.verification.held import held_artefacts
from sam_deploy.verification.notes import notes_on
from sam_deploy.verification.overflow import overflow_check
from sam_deploy.verification.receipt import read_receipt
from sam_deploy.verification.result import Check, LayersReport, ParityResult
from sam_deploy.verification.structure import structure_checks
from sam_deploy.verification.timing import measured_latency
from sam_deploy.verification.where import where_it_broke

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
    manifest = read_bundle(bundle)
    if in_utf8(str(bundle)) != str(bundle):
        raise BundleError(f"ONNX Runtime cannot open {bundle}: the path is no UTF-8. Rename it.")
    with _unchanged(bundle, manifest):
        return _verified(bundle, manifest, asked or Asked(), progress or Progress())


@contextmanager
def _unchanged(bundle: Path, manifest: Manifest) -> Iterator[None]:
    """Files are read at several times: a verdict, or an error, holds for one bundle only."""
    try:
        yield
    except Exception:
        if not _is_still(bundle, manifest):
            raise BundleError(_replaced(bundle)) from None
        raise
    if not _is_still(bundle, manifest):
        raise BundleError(_replaced(bundle))


def _is_still(bundle: Path, manifest: Manifest) -> bool:
    try:
        return read_bundle(bundle) == manifest
    except BundleError:
        return False


def _replaced(bundle: Path) -> str:
    return f"{bundle} was changed or replaced while it was verified. Verify it again."


def _verified(bundle: Path, manifest: Manifest, asked: Asked, progress: Progress) -> ParityResult:
    limits = held_to(manifest.recipe.tolerances, asked)
    receipt = None if asked.against is None else read_receipt(asked.against)
    if receipt is not None:
        check_its_own(receipt, manifest)
    with progress.stage("load"):
        subject = bundle_reference(manifest, asked)
        samples = samples_for(subject, asked.data, labels=asked.labels, limit=asked.limit)
        check_labels(asked, samples)
        crash = _crash(bundle, subject)
        field = contestants(bundle, manifest) if crash is None else Field([], [], [])
    with _closing(field.running):
        field.require(asked.require if crash is None else ())
        checks = [crash] if crash is not None else structure_checks(bundle, manifest, subject)
        results = held_artefacts(
            bundle, manifest, subject, samples, field.running, limits, asked, progress
        )
        ran = any(one.artefact == MODEL and one.parity is not None for one in results)
        if ran:
            overflow = overflow_check(bundle, manifest, samples, progress)
            checks += [overflow] if overflow is not None else []
        latency = None
        if ran and (asked.latency or receipt is not None):
            latency = measured_latency(bundle, manifest, subject, progress)
        layers: LayersReport | None = None
        lacking: list[str] = []
        if asked.layers and crash is None:
            layers, checks, lacking = _looked_into(
                bundle, manifest, subject, samples, checks, progress
            )
    artefacts = [*field.failed, *results]
    failed = any(c.passed is False for c in checks) or any(a.failures for a in artefacts)
    result = ParityResult(
        passed=bool(artefacts) and not failed,
        bundle=in_utf8(str(bundle)),
        name=manifest.name,
        model=manifest.recipe.model,
        precision=manifest.recipe.precision,
        weights_sha256=manifest.weights.sha256,
        data=samples.kind if asked.data is None else in_utf8(str(asked.data)),
        samples=max((a.parity.samples for a in artefacts if a.parity), default=0),
        labelled=samples.labels is not None,
        tolerances=limits,
        checks=checks,
        artefacts=artefacts,
        skipped=field.skipped,
        layers=layers,
        latency=latency,
        notes=[*lacking, *notes_on(samples, artefacts, limits), *samples.left_out()],
    )
    for text in result.notes:
        progress.note(text)
    if receipt is None:
        return result
    moved = drift_checks(receipt, result, manifest)
    passed = result.passed and all(check.passed is not False for check in moved)
    return msgspec.structs.replace(result, checks=[*checks, *moved], passed=passed)


def _looked_into(
    bundle: Path,
    manifest: Manifest,
    subject: Subject,
    samples: Samples,
    checks: list[Check],
    progress: Progress,
) -> tuple[LayersReport | None, list[Check], list[str]]:
    """Where it broke, a check more, and why it could not be told: that is no verdict of its own."""
    try:
        layers, rewritten = where_it_broke(bundle, manifest, subject, samples, progress)
    except (SamDeployError, ModuleNotFoundError) as error:
        return None, checks, [f"where in the network the error comes from was not told: {error}"]
    except Exception as error:  # the verdict stands, whatever goes wrong in looking further
        reason = f"{type(error).__name__}: {error}; please report it"
        return None, checks, [f"where in the network the error comes from was not told: {reason}"]
    return layers, [*checks, rewritten], []


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
