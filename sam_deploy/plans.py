"""TensorRT plans: what a recipe asks for, and the passport that each plan carries."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
EngineChoice = Literal["auto", "none", "tensorrt", "tensorrt-rtx"]
PLANS = "plans"
"""The folder of a bundle that holds them."""

ComputeCapability = Annotated[str, Meta(pattern=r"^[1-9][0-9]?\.[0-9]$")]
BatchSize = Annotated[int, Meta(ge=1, le=2**12)]


class BatchProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The batch sizes that a plan takes, and the one that it is tuned for."""

    min: BatchSize = 1
    opt: BatchSize = 8
    max: BatchSize = 32

    def __post_init__(self) -> None:
        """Refuse sizes out of order.

        Raises:
            ValueError: saying the three.
        """
        if not self.min <= self.opt <= self.max:
            raise ValueError(
                f"the batch profile {self.min}, {self.opt}, {self.max} is not in order: "
                "min, opt, max"
            )


class PlanOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which plans an export builds, and how."""

    engines: list[EngineChoice] = msgspec.field(default_factory=lambda: ["auto"])
    """Flavours by name; "auto" is every flavour that is installed, "none" no plan at all."""
    profile: BatchProfile = BatchProfile()
    """Of a model whose batch is dynamic."""
    compute_capabilities: list[ComputeCapability] = []
    """What TensorRT-RTX builds for ("8.9"); none given, its own default. TensorRT itself builds for
    the GPU that it runs on."""

    def __post_init__(self) -> None:
        """Refuse choices that exclude each other.

        Raises:
            ValueError: "none" or "auto" beside others.
        """
        if len(set(self.engines)) != len(self.engines) or not self.engines:
            raise ValueError(f"engines {self.engines}: name each once, or 'none'")
        if len(self.engines) > 1 and {"none", "auto"} & set(self.engines):
            raise ValueError(f"engines {self.engines}: 'auto' and 'none' stand alone")


class PlanInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plan's passport: what it was built from, with and for. Its hash is in the bundle's files.

    `compute_capabilities` are the GPUs it runs on ("8.9"); none are listed where TensorRT-RTX built
    for its default: 8.0, 8.6, 8.9, 12.0 and later. `gpu` is the GPU that TensorRT built on, by
    name. `profile` is None where the batch is fixed.
    """

    file: str
    flavour: Flavour
    version: str
    compute_capabilities: list[ComputeCapability]
    gpu: str | None
    profile: BatchProfile | None
    options: dict[str, str]
    onnx_sha256: str
    bytes: int
    build_s: float


def plan_file(flavour: Flavour, version: str, compute_capabilities: list[str]) -> str:
    """The plan's path in its bundle: plans/<flavour>-<version>-<targets>.plan."""
    targets = "-".join(f"sm{c.replace('.', '')}" for c in compute_capabilities) or "default"
    return f"{PLANS}/{flavour}-{version}-{targets}.plan"
