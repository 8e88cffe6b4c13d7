"""What a verification found, as `sam-parity --json` prints it and every page shows it."""

from __future__ import annotations

import msgspec

from sam_deploy.parity_report import ParityReport
from sam_deploy.recipe import Precision, Tolerances

RESULT_SCHEMA = 1


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that was looked at beside the figures; `detail` is what was found.

    `passed` None: it could not be looked at here, and `detail` says why.
    """

    name: str
    passed: bool | None
    detail: str


class Guess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A class that was thought likely; `score` is its softmax probability."""

    class_index: int
    name: str
    score: float


class WorstSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sample that the artefact is far from the reference on.

    `error` is the RMS of the difference over the standard deviation of the reference on this
    sample. `label` is its class, where known. `thumbnail` is a PNG of what the model saw.
    """

    sample: str
    error: float
    label: str | None = None
    reference: list[Guess] = []
    artefact: list[Guess] = []
    thumbnail: bytes | None = None

    @property
    def flipped(self) -> bool:
        """Whether the first class is another than the reference's."""
        first = [guesses[0].class_index for guesses in (self.reference, self.artefact) if guesses]
        return len(set(first)) > 1


class Histogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many samples have an error in each bin: `counts[i]` from `edges[i]` to `edges[i + 1]`.

    Errors are those of `WorstSample.error`; what is beyond an end is counted in the bin there.
    """

    edges: list[float]
    counts: list[int]


class ArtefactResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One artefact on one backend. Without `parity` the comparison was void; `failures` say why."""

    artefact: str
    backend: str
    parity: ParityReport | None
    failures: list[str]
    histogram: Histogram | None = None
    worst: list[WorstSample] = []


class Skipped(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An artefact that does not run on this machine, and why."""

    artefact: str
    backend: str
    reason: str


class LayerError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The output of a module in the artefact against the reference's, in the network's order.

    `kind` is the module's class. `group` is what would be kept in higher precision for it.
    """

    module: str
    kind: str
    group: str
    relative_rms: float


class Suggestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group where the error grows, by `growth` (relative RMS behind it over that before it), and
    the lines of the recipe that would keep it in higher precision.
    """

    group: str
    growth: float
    relative_rms: float
    lines: str


class LayersReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where in the network the error comes from, on `samples` samples.

    `jump` is the first group behind which the error is much larger than before it.
    """

    artefact: str
    backend: str
    samples: int
    layers: list[LayerError]
    jump: str | None
    suggestions: list[Suggestion]
    unmatched: list[str] = []
    """Modules whose output stands nowhere in the artefact as it is: folded, merged, fused or, in
    INT8 and FP8, scaled channel by channel."""
    notes: list[str] = []


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bundle's ONNX on the CPU and eager PyTorch beside it, a thread each, measured in turn at
    batch 1 (or the fixed batch), the fastest of 30 rounds; `ratio` is how many times as fast the
    bundle is.
    """

    eager_ms: float
    bundle_ms: float
    ratio: float


class ParityResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. `passed` is the verdict: something ran, and no artefact and no check failed."""

    schema_version: int = RESULT_SCHEMA
    passed: bool
    bundle: str
    name: str
    model: str
    precision: Precision
    weights_sha256: str
    data: str
    samples: int
    labelled: bool
    tolerances: Tolerances
    checks: list[Check]
    artefacts: list[ArtefactResult]
    skipped: list[Skipped]
    layers: LayersReport | None = None
    latency: Latency | None = None
    notes: list[str] = []

    def without_pictures(self) -> ParityResult:
        """The same without thumbnails, which only a page shows."""
        artefacts = [
            msgspec.structs.replace(
                one, worst=[msgspec.structs.replace(w, thumbnail=None) for w in one.worst]
            )
            for one in self.artefacts
        ]
        return msgspec.structs.replace(self, artefacts=artefacts)

    @property
    def failures(self) -> list[str]:
        """Every reason why it did not pass, each naming where."""
        found = [f"{check.name}: {check.detail}" for check in self.checks if check.passed is False]
        for artefact in self.artefacts:
            where = f"{artefact.artefact} on {artefact.backend}"
            found += [f"{where}: {reason}" for reason in artefact.failures]
        if not self.artefacts:
            found.append("nothing ran: no artefact of the bundle can run on this machine")
        return found
