"""Which tolerances a figure does not keep; one that is no number keeps none."""

from __future__ import annotations

from collections.abc import Iterator

from sam_deploy.parity_report import Accuracy, BatchParity, OutputParity
from sam_deploy.recipe import Tolerances

ONE_SAMPLE = 3
"""How many times as far as all samples together a single one may be, in its slot of a batch."""
NEIGHBOURS = 3e-3
"""How much a sample's slot and neighbours may change its result in any precision, relative RMS: the
artefact is compared with itself, so INT8's own error does not enter."""


def broken(result: OutputParity, tolerances: Tolerances) -> Iterator[str]:
    """The tolerances that an output does not keep."""
    for what, figure, limit, most, form in (
        ("relative RMS", result.relative_rms, tolerances.relative_rms, True, ".1e"),
        ("largest error", result.max_error, tolerances.max_error, True, ".1e"),
        ("cosine", result.cosine, tolerances.cosine, False, ".6f"),
        ("top-1 agreement", result.top1_agreement, tolerances.top1_agreement, False, ".4f"),
        ("equal elements", result.equal_elements, tolerances.top1_agreement, False, ".4f"),
    ):
        if figure is None:
            continue
        kept = figure <= limit if most else figure >= limit
        if not kept:
            shown = f"allowed {limit:{form}}" if most else f"at least {limit}"
            yield f"{result.name}: {what} {figure:{form}}, {shown}"


def broken_accuracy(found: Accuracy | None, tolerances: Tolerances) -> Iterator[str]:
    """The tolerances that the accuracy on labelled samples does not keep."""
    if found is None:
        return
    for what, drop, limit, interval in (
        ("top-1", found.top1_drop, tolerances.top1_drop, found.top1_interval),
        ("top-5", found.top5_drop, tolerances.top5_drop, found.top5_interval),
    ):
        if drop is not None and interval is not None and not drop <= limit:
            yield (
                f"{what} drops by {drop:.2f} points on {found.samples} labelled samples "
                f"(95 %: {interval[0]:.2f} to {interval[1]:.2f}), allowed {limit:g}"
            )
    if not found.top1 >= tolerances.top1_accuracy:
        yield (
            f"top-1 accuracy {found.top1:.2f} %, at least {tolerances.top1_accuracy:g} % (PyTorch "
            f"has {found.reference_top1:.2f} %: where that is low too, look at the preprocessing "
            "and at which label is which class)"
        )


def broken_batch(found: BatchParity, tolerances: Tolerances) -> Iterator[str]:
    """What a batch shows that may not be: a slot that is wrong, or that its neighbours change."""
    limit = ONE_SAMPLE * tolerances.relative_rms
    wrong = [slot for slot, rms in enumerate(found.slots_rms) if not rms <= limit]
    if wrong:
        worst = max(wrong, key=lambda slot: found.slots_rms[slot])
        yield (
            f"batch of {found.size}: slot {worst} is off by a relative RMS of "
            f"{found.slots_rms[worst]:.1e}, allowed {limit:.1e} ({len(wrong)} of {found.size} are)"
        )
    allowed = min(tolerances.relative_rms, NEIGHBOURS)
    if not found.neighbours_rms <= allowed:
        yield (
            f"batch of {found.size}: a sample's result depends on its slot or its neighbours "
            f"(relative RMS {found.neighbours_rms:.1e}, allowed {allowed:.1e})"
        )
