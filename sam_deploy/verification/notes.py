"""What whoever reads a verdict should know of what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sam_deploy.parity import Samples
from sam_deploy.recipe import Tolerances
from sam_deploy.verification.result import ArtefactResult


def notes_on(
    samples: Samples, artefacts: Sequence[ArtefactResult], limits: Tolerances
) -> Iterator[str]:
    """What whoever reads the verdict should know of what it rests on."""
    if samples.kind in ("synthetic", "seeded normal", "example"):
        yield (
            "measured on built-in samples, not on your images: give --data with images like those "
            "in production, in a folder for each class where their classes are known."
        )
    if limits.top1_accuracy > 0 and samples.labels is None:
        yield (
            f"the top-1 accuracy of {limits.top1_accuracy:g} % or more, which the recipe wants, "
            "was not judged: the samples have no labels."
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
