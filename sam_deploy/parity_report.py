"""What a comparison with the reference found: figures, tolerances, verdict, reasons."""

from __future__ import annotations

from typing import Literal

import msgspec

from sam_deploy.recipe import Tolerances

SampleKind = Literal["folder", "npz", "example", "synthetic", "seeded normal", "iterable"]


class OutputParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One output of the artefact against the reference, over all samples.

    Floats are judged by distance; `top1_agreement` only where they are scores of classes. Of
    integers and booleans only `equal_elements` is given, the part that is the reference's.

    `flips` are the samples whose first class is another than the reference's. A flip's margin is by
    how much the reference preferred its own first class to the artefact's, in standard deviations
    of the reference: near 0 it was close to a tie.
    """

    name: str
    relative_rms: float | None = None
    max_error: float | None = None
    cosine: float | None = None
    top1_agreement: float | None = None
    equal_elements: float | None = None
    flips: int | None = None
    flip_margin_mean: float | None = None
    flip_margin_max: float | None = None


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often the label is the first class, or among the first five, in per cent of `samples`.

    A drop is the reference's less the artefact's, in points; its interval holds the true drop with
    95 % confidence. `top5` is None where there are no more than five classes.
    """

    samples: int
    top1: float
    reference_top1: float
    top1_drop: float
    top1_interval: tuple[float, float]
    top5: float | None = None
    reference_top5: float | None = None
    top5_drop: float | None = None
    top5_interval: tuple[float, float] | None = None


class BatchParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A batch of `size` different samples, each slot against the reference on that sample alone.

    `slots_rms` is the relative RMS of each slot. `neighbours_rms` is the largest relative RMS
    between a sample's results in two slots, among other neighbours.
    """

    size: int
    slots_rms: list[float]
    neighbours_rms: float


class ParityReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An artefact against the untouched FP32 model: figures, tolerances, verdict, reasons."""

    artefact: str
    backend: str
    data: SampleKind
    samples: int
    unreadable: int = 0
    """Images of the folder that could not be read, and so were left out."""
    data_sha256: str
    tolerances: Tolerances
    outputs: list[OutputParity]
    accuracy: Accuracy | None = None
    batches: list[BatchParity] = []
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether every figure kept its tolerance."""
        return not self.failures
