"""An inference as the handler sees it, whichever way it came in and goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sam_deploy.runner import Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. `array` has its shape; of BYTES it holds `bytes` as objects."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that was asked for: in bytes or in JSON where it says so, as its `classes` most
    likely classes where that is not 0.
    """

    name: str
    binary: bool | None = None
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`wanted` is empty where all outputs are; `timeout_s` is the client's."""

    model: str
    version: str
    id: str
    inputs: tuple[Tensor, ...]
    wanted: tuple[Wanted, ...] = ()
    binary: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """Its outputs are those that were asked for, in that order."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
