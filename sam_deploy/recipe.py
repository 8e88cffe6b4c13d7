"""A recipe: what is exported and how good it must be. One TOML file a deployment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sam_deploy import architecture
from sam_deploy.architecture import MIN_IMAGE_PX, Architecture, Channels, Heads, Ratio
from sam_deploy.errors import InputError, nearest
from sam_deploy.plans import PlanOptions
from sam_deploy.preprocess import Preprocessing
from sam_deploy.quantization import SYNTHETIC, Quantization
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.validation import is_plain_name, struct_from_dict

FloatPrecision = Literal["fp32", "fp16"]
Precision = Literal["fp32", "fp16", "int8", "fp8"]
"""INT8 and FP8 are of the layers that are quantized; beside them is FP16, or for a CPU FP32."""
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")
Fraction = Annotated[float, Meta(ge=0, le=1)]
Points = Annotated[float, Meta(ge=0, le=5)]
Pixels = Annotated[int, Meta(ge=1, le=2**14)]
MAX_ISLAND_MACS = 0.05  # an FP16 model with more than this in FP32 is not what was asked for


class Tolerances(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What parity is held to, per output, over all validation images. Set before measuring.

    The bounds are such that a model which ignores its input cannot keep them.
    """

    relative_rms: Annotated[float, Meta(gt=0, le=0.1)]
    """RMS of the difference over the standard deviation of the reference, at most."""
    max_error: Annotated[float, Meta(gt=0, le=0.5)]
    """Largest absolute difference over the range of the reference (maximum less minimum), at most:
    the standard deviation would judge a few large probabilities by many small ones."""
    cosine: Annotated[float, Meta(ge=0.9, le=1)]
    """Cosine between all outputs and the reference's, at least."""
    top1_agreement: Fraction
    """Fraction of decisions that are the reference's, at least: first classes of a classifier,
    elements of an output of integers or booleans."""
    top1_drop: Points
    """Of labelled data: the reference's top-1 less the artefact's, in points, at most."""
    top5_drop: Points
    """The same of top-5."""
    top1_accuracy: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """Of labelled data: the artefact's top-1 in per cent, at least. It is the only one that sees
    what is wrong on both sides: the labels' order, preprocessing that is not the training's."""


_FP32 = {"relative_rms": 1e-5, "max_error": 1e-4, "cosine": 0.99999, "top1_agreement": 1.0}
_FP16 = {"relative_rms": 3e-3, "max_error": 1e-2, "cosine": 0.9999, "top1_agreement": 0.95}
_INT8 = {"relative_rms": 5e-2, "max_error": 5e-2, "cosine": 0.998, "top1_agreement": 0.9}
_FP8 = {"relative_rms": 8e-2, "max_error": 8e-2, "cosine": 0.995, "top1_agreement": 0.85}
DEFAULT_TOLERANCES: dict[Precision, Tolerances] = {
    "fp32": Tolerances(**_FP32, top1_drop=0.0, top5_drop=0.0),
    "fp16": Tolerances(**_FP16, top1_drop=0.2, top5_drop=0.2),
    "int8": Tolerances(**_INT8, top1_drop=1.0, top5_drop=1.0),
    "fp8": Tolerances(**_FP8, top1_drop=1.0, top5_drop=1.0),
}
UNTRAINED_TOP1 = 0.5
"""In INT8 and FP8, of random weights: their classes are nearly tied, and decide little."""


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a bundle may move from a receipt of an earlier one before `--against` fails.

    For the better it may move freely. Rules that fired less often are never allowed.
    """

    parity: Annotated[float, Meta(ge=1, le=100)] = 1.5
    """The relative RMS, as a multiple of the receipt's."""
    accuracy: Points = 0.5
    """Top-1 on labelled data, in points below the receipt's."""
    nodes: Annotated[int, Meta(ge=0)] = 0
    """ONNX nodes more than the receipt's."""
    size: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Bytes of the ONNX more than the receipt's, as a part of those."""
    latency: Annotated[float, Meta(ge=0, le=1)] = 0.3
    """Of its speed against eager PyTorch at batch 1, the part that may be lost."""


class Island(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nodes that stay in FP32, and why. `match` is a module path; all below it belongs to it."""

    match: str
    reason: str


class SamShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The SAM module on its own: channels, heads, expand ratio."""

    dim: Channels = 256
    heads: Heads = 4
    expand: Ratio = 2

    def __post_init__(self) -> None:
        """Refuse a dim that the heads don't divide.

        Raises:
            ValueError: saying both numbers.
        """
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One deployment. Paths are relative to the recipe's file."""

    model: str
    """A name of `list_models()`, with `architecture` any name of your own, or
    `package.module:factory` for a network of your own."""
    image_size: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels; for `sam` its grid of tokens. A network of your own may do
    without: then its factory gives example inputs."""
    precision: Precision = "fp32"
    tolerances: Tolerances
    input_names: list[str] = []
    output_names: list[str] = []
    architecture: Architecture | None = None
    sam: SamShape | None = None
    weights: str | None = None
    ema: bool = False
    num_classes: Annotated[int, Meta(ge=0, le=2**20)] | None = None
    class_names: str | None = None
    batch: Annotated[int, Meta(ge=1, le=2**12)] | None = None
    """A fixed batch size; without it the batch is dynamic."""
    features: bool = False
    softmax: bool = False
    io_dtype: FloatPrecision = "fp32"
    preprocessing: Preprocessing | None = None
    rewrites: RewriteOptions = RewriteOptions()
    islands: list[Island] = []
    allow_islands: Fraction = MAX_ISLAND_MACS
    """The part of all multiply-adds that islands may hold."""
    quantization: Quantization | None = None
    """How INT8 and FP8 are made; without it the defaults."""
    calibration: str | None = None
    """What INT8 and FP8 find their ranges on: a folder of images, an .npz, or "synthetic"."""
    plans: PlanOptions = PlanOptions()
    drift: Drift = Drift()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ValueError: saying what contradicts what.
        """
        if self.is_own:
            self._check_own()
        else:
            self._check_known()
        if self.ema and self.weights is None:
            raise ValueError("ema takes the averaged weights of a checkpoint: give weights")
        wanted = self.preprocessing and self.preprocessing.size_px
        if wanted and self.image_size and wanted != self.image_size:
            raise ValueError(
                f"preprocessing.size_px = {wanted} is not image_size = {self.image_size}"
            )
        if self.precision == "fp32" and (self.io_dtype != "fp32" or self.islands):
            raise ValueError("io_dtype and islands belong to precision 'fp16' and those below")
        if self.precision not in QUANTIZED and (self.quantization or self.calibration):
            raise ValueError("quantization and calibration belong to precision 'int8' and 'fp8'")
        if self.is_for_cpu:
            self._check_for_cpu()

    def _check_for_cpu(self) -> None:
        if self.precision == "fp8":
            raise ValueError("no CPU computes in FP8: quantization.target 'cpu' goes with 'int8'")
        if self.io_dtype != "fp32":
            raise ValueError(
                "io_dtype 'fp16' is for GPUs: with quantization.target 'cpu' take 'fp32'"
            )
        if set(self.plans.engines) - {"auto", "none"}:
            raise ValueError(
                "plans.engines asks for a TensorRT plan, and quantization.target is 'cpu': "
                "TensorRT refuses that graph"
            )

    def _check_known(self) -> None:
        known = architecture.list_models()
        if self.architecture is None and self.model not in known:
            raise ValueError(
                f"unknown model {self.model!r}; known are {', '.join(known)}, and a network of "
                "your own is package.module:factory." + nearest(self.model, known)
            )
        if self.architecture is not None and self.model in known:
            raise ValueError(f"model {self.model!r} has an architecture of its own: name it anew")
        if not is_plain_name(self.model):
            raise ValueError(
                f"model {self.model!r} cannot name a folder: take letters, digits, '.', '_', '-'"
            )
        if self.image_size is None:
            raise ValueError(f"image_size is missing: {self.model} needs a height and a width")
        if self.input_names or self.output_names:
            raise ValueError("input_names and output_names belong to networks of your own")
        if self.is_sam:
            self._refuse(
                ("num_classes", "class_names", "features", "softmax", "preprocessing"),
                "'sam': it maps tokens to tokens",
            )
        elif self.sam is not None:
            raise ValueError("dim, heads and expand belong to model 'sam'")
        elif min(self.image_size) < MIN_IMAGE_PX:
            raise ValueError(
                f"image size {size_label(self.image_size)} is below "
                f"{MIN_IMAGE_PX}x{MIN_IMAGE_PX} pixels"
            )
        for field in ("softmax", "class_names", "num_classes"):
            if self.features and getattr(self, field):
                raise ValueError(
                    f"features and {field} exclude each other: feature maps have no classes"
                )

    def _check_own(self) -> None:
        self._refuse(
            ("architecture", "sam", "num_classes", "features", "softmax"),
            f"{self.model}: its factory decides what it returns",
        )
        if self.class_names and not self.preprocessing and not self.image_size:
            raise ValueError("class_names need images to classify: give preprocessing")

    def _refuse(self, fields: tuple[str, ...], what: str) -> None:
        for field in fields:
            if getattr(self, field):
                raise ValueError(f"{field} does not apply to {what}")

    @property
    def is_own(self) -> bool:
        """Whether this is a network of the user's own, given as package.module:factory."""
        return ":" in self.model

    @property
    def is_for_cpu(self) -> bool:
        """Whether its quantized graph is laid out for CPUs."""
        return self.quantization is not None and self.quantization.target == "cpu"

    @property
    def beside(self) -> FloatPrecision:
        """The floats of what is not quantized."""
        return "fp32" if self.precision == "fp32" or self.is_for_cpu else "fp16"

    @property
    def is_sam(self) -> bool:
        """Whether this is the SAM module on its own."""
        return self.model == architecture.SAM

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, where the model has them."""
        assert self.image_size is not None
        return self.image_size

    @property
    def name(self) -> str:
        """The bundle's name: <model>[-features|-softmax|-b8]-<precision>[-cpu][-<size>]."""
        return self.named(self.precision + ("-cpu" if self.is_for_cpu else ""))

    def named(self, precision: str) -> str:
        """The name with something else for the precision: "best", where that is yet to be found."""
        label = own_label(self.model) if self.is_own else self.model
        marks = ("-features" if self.features else "") + ("-softmax" if self.softmax else "")
        marks += f"-b{self.batch}" if self.batch else ""
        size = f"-{size_label(self.image_size)}" if self.image_size else ""
        return f"{label}{marks}-{precision}{size}"


def own_label(model: str) -> str:
    """What `package.module:factory` is called for short: "factory", as a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.rpartition(":")[2]).strip("-._") or "network"


def size_label(size: tuple[int, int]) -> str:
    """'224' for a square, '192x256' (height x width) otherwise."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def recipe_from_dict(data: dict[str, Any], source: str) -> Recipe:
    """A recipe from its TOML's content; `source` names it in errors.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong type, a missing key, a
            contradiction.
    """
    defaults = {
        precision: msgspec.to_builtins(limits) for precision, limits in DEFAULT_TOLERANCES.items()
    }
    precision, model = data.get("precision", "fp32"), data.get("model")
    if isinstance(precision, str) and precision in defaults:
        limits = defaults[precision]
        known = isinstance(model, str) and ":" not in model
        if precision in QUANTIZED and known and data.get("weights") is None:
            limits["top1_agreement"] = UNTRAINED_TOP1
        given = data.get("tolerances", {})
        if isinstance(given, dict):  # those that are not given are the precision's
            data = {**data, "tolerances": {**limits, **given}}
    return struct_from_dict(data, Recipe, source)


def read_recipe(path: Path) -> Recipe:
    """The recipe in the TOML file `path`, its paths made relative to the working directory.

    Raises:
        InputError: not a file, not TOML, or not a recipe.
    """
    return recipe_from_dict(read_recipe_data(path), str(path))


def read_recipe_data(path: Path) -> dict[str, Any]:
    """What stands in the TOML file `path`, unchecked; its paths as in `read_recipe`.

    Raises:
        InputError: not a file, or not TOML.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"no such recipe: {path}. The shipped ones are in {recipes_folder()}; "
            "a model's name goes after --model."
        ) from None
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a recipe in TOML: {error}. A checkpoint goes after --weights."
        ) from None
    for key in ("weights", "class_names", "calibration"):
        if isinstance(data.get(key), str) and data[key] != SYNTHETIC:
            data[key] = str(path.parent / data[key])
    return data


def recipes_folder() -> Path:
    """Where the shipped recipes are: in the wheel, or at the top of a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "export"


def shipped_recipe(model: str, precision: Precision, size: tuple[int, int] | None) -> Path | None:
    """The shipped recipe for a model: of that size if there is one, else of its smallest size."""
    folder = recipes_folder()
    if size is not None:
        exact = folder / f"{model}-{precision}-{size_label(size)}.toml"
        if exact.is_file():
            return exact
    found = folder.glob(f"{model}-{precision}-*.toml")
    return min(found, key=lambda path: (len(path.name), path.name), default=None)


def shipped_models() -> list[str]:
    """The models that there are shipped recipes of."""
    return sorted({path.stem.split("-")[0] for path in recipes_folder().glob("*.toml")})
