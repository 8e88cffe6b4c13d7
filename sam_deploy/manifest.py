"""The manifest: what a bundle says of itself, and all that a service must know to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from sam_deploy.errors import BundleError
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import PlanInfo
from sam_deploy.preprocess import Preprocessing
from sam_deploy.quantization import QuantizationReport
from sam_deploy.recipe import FloatPrecision, Precision, Recipe
from sam_deploy.report import RewriteReport
from sam_deploy.tuning import TuningReport

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 6
TensorDtype = Literal[
    "float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"
]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An input or output. `dims` are sizes, or a name where the size is free ("batch")."""

    name: str
    dtype: TensorDtype
    dims: list[int | str]


class ModelInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model this is; `num_classes` is None where there is no head.

    `kind` "module" is any network that gives no scores of classes.
    """

    name: str
    kind: Literal["classifier", "backbone", "sam", "module"]
    num_classes: int | None
    layer_scale: bool
    parameters: int


class WeightsInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the weights come from; `sha256` is over names, dtypes, shapes and values.

    `source` "module": they were in the network that was given.
    """

    source: Literal["checkpoint", "random", "module"]
    file: str | None
    ema: bool
    seed: int | None
    sha256: str


class GraphInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ONNX graph: its opset, its nodes, and how often each operator stands in it."""

    opset: int
    nodes: int
    operators: dict[str, int]


class LargestValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The largest |x| that the graph carries in FP16, measured in FP32, and the value's name."""

    name: str
    value: float


class IslandReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nodes that stay in FP32, and why: a module of the recipe, or a node that FP16 cannot hold.

    `largest` is the |x| that was measured in FP32 where that is the reason.
    """

    match: str
    reason: str
    largest: float | None = None


class PrecisionReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the audit found: for each operator how many nodes compute in which type.

    `island_macs` is the part of the multiply-adds that is in `islands`.
    """

    precision: Precision
    io_dtype: FloatPrecision
    islands: list[IslandReport]
    island_macs: float
    types_by_op: dict[str, dict[str, int]]
    largest: LargestValue | None = None
    quantization: QuantizationReport | None = None


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether `precision` was worth it on `target`: its speed over that of `baseline` there.

    `ratio` and `ship` are None where the target does not run on the machine that exported.
    """

    target: str
    precision: Precision
    baseline: Precision
    ratio: float | None
    top1_agreement: float | None
    ship: Precision | None

    @property
    def text(self) -> str:
        """The verdict in a line."""
        name, rival = self.precision.upper(), self.baseline.upper()
        if self.ratio is None or self.ship is None:
            return f"{name} on {self.target}: not measured"
        how = f"{name}: {self.ratio:.2f}x as fast as {rival} on {self.target}"
        if self.top1_agreement is not None:
            how += f", {100 * (self.top1_agreement - 1):+.1f} points of top-1 agreement"
        if self.ship != self.precision:
            how += f": not faster here: ship {self.ship.upper()}"
            return how
        return f"{how}: ship {name}"


class FileInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of the bundle."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`. `files` lists every other file of the bundle."""

    schema_version: int
    name: str
    model: ModelInfo
    weights: WeightsInfo
    class_names: list[str]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    preprocessing: Preprocessing | None
    rewrites: RewriteReport
    graph: GraphInfo
    precision: PrecisionReport
    parity: list[ParityReport]
    recipe: Recipe
    versions: dict[str, str]
    machine: dict[str, str] = {}
    plans: list[PlanInfo] = []
    verdicts: list[Verdict] = []
    tuning: TuningReport | None = None
    files: dict[str, FileInfo]

    def __post_init__(self) -> None:
        """Refuse what no engine could run, so that no reader has to check again.

        Raises:
            ValueError: saying what is missing or contradicts.
        """
        if not (self.inputs and self.outputs and all(t.dims for t in self.inputs)):
            raise ValueError("a bundle has inputs and outputs, and its inputs have dims")
        if self.model.kind == "classifier" and self.preprocessing is None:
            raise ValueError("a classifier has preprocessing")
        classes = self.model.num_classes
        if classes and [output.dims[1:] for output in self.outputs] != [[classes]]:
            raise ValueError(f"a model of {classes} classes has one output, (batch, {classes})")
        if self.class_names and len(self.class_names) != self.model.num_classes:
            raise ValueError(
                f"{len(self.class_names)} class names for {self.model.num_classes} classes"
            )
        unlisted = [plan.file for plan in self.plans if plan.file not in self.files]
        if unlisted:
            raise ValueError(f"plans that are not among the files: {', '.join(unlisted)}")


class _Header(msgspec.Struct):
    schema_version: int


def manifest_from_json(data: bytes, source: str) -> Manifest:
    """The manifest in `data`; `source` names it in errors.

    Raises:
        BundleError: not JSON, not a manifest, or of a schema newer than this package knows.
    """
    try:
        version = msgspec.json.decode(data, type=_Header).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{source} has schema version {version}; this sam-deploy reads {SCHEMA_VERSION}. "
                "Use the sam-deploy that wrote it, or export again."
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{source} is not a manifest: {error}") from None


def has_schema_version(path: Path) -> bool:
    """Whether `path` is a manifest of any schema; a web page's `manifest.json` is none."""
    try:
        msgspec.json.decode(path.read_bytes(), type=_Header)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def manifest_to_json(manifest: Manifest) -> bytes:
    """The manifest as indented JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def reproducible_part(manifest: Manifest) -> bytes:
    """The manifest as JSON without what another export of the same recipe and weights may change:
    plans and their files, verdicts (they are times), the reports of plans, the machine.
    """
    plans = {plan.file for plan in manifest.plans}
    kept = msgspec.structs.replace(
        manifest,
        plans=[],
        verdicts=[],
        machine={},
        parity=[report for report in manifest.parity if report.artefact not in plans],
        files={name: info for name, info in manifest.files.items() if name not in plans},
    )
    return manifest_to_json(kept)
