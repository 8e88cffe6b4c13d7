"""What is asked of a verification beside the bundle, and tolerances that flags may tighten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from sam_deploy.errors import InputError
from sam_deploy.parity import Samples
from sam_deploy.parity.folders import Labels
from sam_deploy.recipe import Tolerances
from sam_deploy.runtime import BACKENDS
from sam_deploy.validation import struct_from_dict

_OF_LABELS = ("top1_drop", "top5_drop", "top1_accuracy")
_AT_LEAST = ("cosine", "top1_agreement", "top1_accuracy")


@dataclass(frozen=True)
class Asked:
    """`weights` is the checkpoint that was exported, `model` the factory of an own network, or
    `module` that network itself with its `example_inputs`.

    `data` is what both are run on, built-in samples without it; `limit` takes so many of it.
    `tolerances` replace those of the recipe, looser ones only with `allow_looser`. Backends in
    `require` must run here. `resume` goes on from an interrupted run. `layers` looks where in the
    network the error comes from, `latency` times the ONNX beside eager PyTorch, and `against` holds
    the bundle against the receipt of an earlier one.
    """

    weights: Path | None = None
    model: str | None = None
    module: nn.Module | None = None
    example_inputs: Any = None
    data: Path | None = None
    labels: Labels = "required to fit"
    limit: int | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    allow_looser: bool = False
    require: tuple[str, ...] = ()
    resume: bool = True
    layers: bool = False
    latency: bool = False
    against: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: a limit below 1, or a backend that is none.
        """
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit is {self.limit}; expected 1 sample or more.")
        unknown = [name for name in self.require if name not in BACKENDS]
        if unknown:
            raise InputError(
                f"unknown backend {unknown[0]!r} is required; known are {', '.join(BACKENDS)}."
            )


def held_to(limits: Tolerances, asked: Asked) -> Tolerances:
    """The recipe's tolerances with those that are asked for.

    Raises:
        InputError: one is looser, or is no tolerance.
    """
    data = msgspec.to_builtins(limits)
    found = struct_from_dict({**data, **asked.tolerances}, Tolerances, "the tolerances")
    for name, value in asked.tolerances.items():
        looser = value < data[name] if name in _AT_LEAST else value > data[name]
        if looser and not asked.allow_looser:
            raise InputError(
                f"{name} {value:g} is looser than the recipe's {data[name]:g}, which was set "
                "before anything was measured. Give a tighter one, change the recipe, or say that "
                "you mean it: --allow-looser."
            )
    return found


def check_labels(asked: Asked, samples: Samples) -> None:
    """Refuse to leave unjudged what is asked for.

    Raises:
        InputError: a tolerance is of labelled samples, and these have no labels.
    """
    unjudged = [name for name in _OF_LABELS if name in asked.tolerances]
    if unjudged and samples.labels is None:
        raise InputError(
            f"{unjudged[0]} is of labelled samples, and these have no labels. Give a folder with "
            "one for each class and no images beside them, or an .npz with labels."
        )
