"""The artefacts that run here, held against the reference: in one pass, and in every slot of a
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sam_deploy.bundle import MANIFEST
from sam_deploy.bundle.files import sha256_of
from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import Manifest
from sam_deploy.parity import Samples
from sam_deploy.parity.batches import chosen_rows, expected_alone, measure_batches
from sam_deploy.parity.comparison import Comparison
from sam_deploy.parity.gate import batch_of, described
from sam_deploy.parity.judge import batch_figures
from sam_deploy.parity.judge import reasons as why
from sam_deploy.progress import Progress
from sam_deploy.recipe import Tolerances
from sam_deploy.reference import Subject
from sam_deploy.verification.asked import Asked
from sam_deploy.verification.contestants import Contestant
from sam_deploy.verification.gallery import Gallery
from sam_deploy.verification.result import ArtefactResult
from sam_deploy.verification.resume import Checkpoint, identity_of
from sam_deploy.verification.streaming import stream

_ANY = 2**12  # batches that no profile bounds


def held_artefacts(
    bundle: Path,
    manifest: Manifest,
    subject: Subject,
    samples: Samples,
    running: Sequence[Contestant],
    limits: Tolerances,
    asked: Asked,
    progress: Progress,
) -> list[ArtefactResult]:
    """What each of `running` is like on `samples`, held to `limits`.

    Raises:
        InputError: none of the images could be read.
    """
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
    batch = manifest.recipe.batch or min(
        batch_of(subject.examples()), *(c.profile.max for c in running if c.profile), _ANY
    )
    taken = stream(
        comparisons,
        galleries,
        subject.run,
        samples,
        batch=batch,
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
                reasons = [reason for one in batches for reason in why(batch_figures(one, limits))]
            except CheckFailed as failure:
                reasons = [str(failure)]
            failures = [*result.failures, *reasons]
            parity = msgspec.structs.replace(result.parity, batches=batches, failures=failures)
            results.append(msgspec.structs.replace(result, parity=parity, failures=failures))
    return results
