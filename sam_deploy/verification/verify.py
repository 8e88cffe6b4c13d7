"""Bundle in, verdict out: every artefact that runs here against the model that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sam_deploy.bundle import MANIFEST, MODEL, read_bundle
from sam_deploy.bundle.files import sha256_of
from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import Manifest
from sam_deploy.parity import PARITY_BATCH, Samples
from sam_deploy.parity.batches import chosen_rows, expected_alone, measure_batches
from sam_deploy.parity.comparison import Comparison
from sam_deploy.parity.crash import check_loads
from sam_deploy.parity.gate import described
from sam_deploy.parity.judge import broken_batch
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.progress import Progress
from sam_deploy.recipe import Tolerances
from sam_deploy.reference import Subject
from sam_deploy.verification.asked import Asked, held_to
from sam_deploy.verification.bundle_reference import bundle_reference
from sam_deploy.verification.contestants import Contestant, Field, contestants
from sam_deploy.verification.gallery import Gallery
from sam_deploy.verification.overflow import overflow_check
from sam_deploy.verification.result import ArtefactResult, Check, ParityResult
from sam_deploy.verification.resume import Checkpoint, identity_of
from sam_deploy.verification.streaming import stream
from sam_deploy.verification.structure import structure_checks

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
    with progress.stage("load"):
        subject = bundle_reference(manifest, asked)
        samples = samples_for(subject, asked.data, labels=asked.labels, limit=asked.limit)
        crash = _crash(bundle, subject)
        field = contestants(bundle, manifest) if crash is None else Field([], [], [])
    with _closing(field.running):
        field.require(asked.require if crash is None else ())
        checks = [crash] if crash is not None else structure_checks(bundle, manifest, subject)
        results = _held(bundle, manifest, subject, samples, field.running, limits, asked, progress)
        if crash is None:
            overflow = overflow_check(bundle, manifest, samples, progress)
            checks += [overflow] if overflow is not None else []
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
        notes=[*_notes(samples, artefacts, limits), *samples.left_out()],
    )
    for text in result.notes:
        progress.note(text)
    return result


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


def _held(
    bundle: Path,
    manifest: Manifest,
    subject: Subject,
    samples: Samples,
    running: Sequence[Contestant],
    limits: Tolerances,
    asked: Asked,
    progress: Progress,
) -> list[ArtefactResult]:
    classes = bool(subject.info.num_classes)
    galleries = [
        Gallery(
            samples,
            classes=classes,
            class_names=manifest.class_names,
            softmax=manifest.recipe.softmax,
            preprocessing=subject.preprocessing,
        )
        for _ in running
    ]
    comparisons = [
        Comparison(
            contestant.artefact,
            contestant.runner,
            manifest.inputs,
            manifest.outputs,
            classes=classes,
            tolerances=limits,
            profile=contestant.profile,
            watch=gallery.watch,
        )
        for contestant, gallery in zip(running, galleries, strict=True)
    ]
    checkpoint = Checkpoint(
        [
            sha256_of(bundle / MANIFEST),
            *identity_of(samples, asked.data),
            *(contestant.runner.backend for contestant in running),
        ]
    )
    taken = stream(
        comparisons,
        galleries,
        subject.run,
        samples,
        batch=manifest.recipe.batch or PARITY_BATCH,
        checkpoint=checkpoint,
        resume=asked.resume,
        progress=progress,
    )
    found = []
    for contestant, comparison, gallery in zip(running, comparisons, galleries, strict=True):
        try:
            report = comparison.report(**described(samples, taken))
        except CheckFailed as failure:
            found.append(
                ArtefactResult(
                    artefact=contestant.artefact,
                    backend=contestant.runner.backend,
                    parity=None,
                    failures=[str(failure)],
                )
            )
            continue
        found.append(
            ArtefactResult(
                artefact=contestant.artefact,
                backend=contestant.runner.backend,
                parity=report,
                failures=report.failures,
                histogram=gallery.histogram(),
                worst=gallery.seen.worst,
            )
        )
    return _with_batches(found, manifest, subject, samples, running, progress)


def _with_batches(
    found: list[ArtefactResult],
    manifest: Manifest,
    subject: Subject,
    samples: Samples,
    running: Sequence[Contestant],
    progress: Progress,
) -> list[ArtefactResult]:
    """The results with every batch size at the corners of the profile."""
    fixed, usual = manifest.recipe.batch, manifest.recipe.plans.profile
    sizes = [
        [fixed] if fixed else sorted({p.min, p.opt, p.max})
        for p in ((contestant.profile or usual) for contestant in running)
    ]
    most = max((size for listed in sizes for size in listed), default=0)
    if not any(result.parity for result in found):
        return found
    rows = chosen_rows(samples, most)
    steps = len(rows) + sum(map(len, sizes))
    results = []
    with progress.stage("batches", steps) as advance:
        expected = expected_alone(subject.run, rows, fixed, advance)
        for result, contestant, listed in zip(found, running, sizes, strict=True):
            if result.parity is None:
                results.append(result)
                continue
            reasons, batches = [], []
            try:
                batches = measure_batches(
                    contestant.runner,
                    rows,
                    expected,
                    manifest.inputs,
                    manifest.outputs,
                    listed,
                    advance,
                )
                limits = result.parity.tolerances
                reasons = [reason for one in batches for reason in broken_batch(one, limits)]
            except CheckFailed as failure:
                reasons = [str(failure)]
            failures = [*result.failures, *reasons]
            parity = msgspec.structs.replace(result.parity, batches=batches, failures=failures)
            results.append(msgspec.structs.replace(result, parity=parity, failures=failures))
    return results


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
