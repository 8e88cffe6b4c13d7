"""All comparisons in one pass over the samples, kept on disk from time to time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sam_deploy.parity import Samples
from sam_deploy.parity.comparison import Comparison, Reference
from sam_deploy.parity.gate import Taken, compare
from sam_deploy.parity.sample_hash import SamplesHash
from sam_deploy.progress import Progress
from sam_deploy.verification.gallery import Gallery
from sam_deploy.verification.resume import Checkpoint, Gathered, State


def stream(
    comparisons: Sequence[Comparison],
    galleries: Sequence[Gallery],
    reference: Reference,
    samples: Samples,
    *,
    batch: int,
    checkpoint: Checkpoint,
    resume: bool,
    progress: Progress,
) -> Taken:
    """Run `compare`, from where an interrupted run stopped if `resume` and there was one.

    However it ends before its time, what was gathered is kept; when it is done, nothing is.

    Raises:
        InputError: none of the images could be read.
    """
    if not comparisons:
        return Taken()
    taken = _restored(checkpoint, comparisons, galleries, samples) if resume else Taken()
    if taken.next:
        progress.note(
            f"going on at sample {taken.next} of {samples.count}, where an interrupted run stopped "
            "(--restart begins anew)"
        )

    def snapshot_if_due() -> None:
        if checkpoint.due():
            checkpoint.snapshot(_state(taken, comparisons, galleries, samples))

    with progress.stage("parity", samples.count) as advance:
        advance(taken.next)
        try:
            compare(
                comparisons,
                reference,
                samples,
                batch=batch,
                taken=taken,
                progress=advance,
                after=snapshot_if_due,
            )
        except BaseException:
            checkpoint.flush()
            raise
    checkpoint.remove()
    return taken


def _restored(
    checkpoint: Checkpoint,
    comparisons: Sequence[Comparison],
    galleries: Sequence[Gallery],
    samples: Samples,
) -> Taken:
    state = checkpoint.read()
    if state is None or len(state.gathered) != len(comparisons):
        return Taken()
    for comparison, gallery, kept in zip(comparisons, galleries, state.gathered, strict=True):
        comparison.void = kept.void
        comparison.restore(kept.sums, kept.hits)
        gallery.seen = kept.seen
    samples.unreadable.update({Path(path): why for path, why in state.unreadable.items()})
    return Taken(state.next, state.samples, SamplesHash(state.digest))


def _state(
    taken: Taken,
    comparisons: Sequence[Comparison],
    galleries: Sequence[Gallery],
    samples: Samples,
) -> State:
    return State(
        next=taken.next,
        samples=taken.samples,
        digest=taken.hash.digest,
        unreadable={str(path): why for path, why in samples.unreadable.items()},
        gathered=[
            Gathered(void=comparison.void, sums=sums, hits=hits, seen=gallery.seen)
            for comparison, gallery in zip(comparisons, galleries, strict=True)
            for sums, hits in [comparison.state]
        ],
    )
