"""What a server can be asked about by name: a model, and what stands beside it for images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sam_deploy.serving.failures import BadRequest
from sam_deploy.serving.message import InferRequest, InferResponse
from sam_deploy.serving.statistics import Statistics


@dataclass(frozen=True)
class Port:
    """An input or output as metadata describe it; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Servable(Protocol):
    """One name of a server's."""

    name: str
    version: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    statistics: Statistics

    @property
    def ready(self) -> bool:
        """Whether it would answer."""
        ...

    @property
    def max_batch(self) -> int:
        """Rows that it runs at once, 0 where it does not batch."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Class names, or none."""
        ...

    @property
    def about(self) -> Mapping[str, str]:
        """What runs it."""
        ...

    def using(self) -> Any:
        """A context in which it is not closed."""
        ...

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """Answer a request.

        Raises:
            ServingError: it cannot be answered; says why.
        """
        ...


class Uses:
    """Counts who uses something that must not close under them."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more, in this context."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def selected(request: InferRequest, ports: Sequence[Port]) -> list[str]:
    """The outputs that a request wants, in its order; all where it names none.

    Raises:
        BadRequest: one is unknown, or wanted twice.
    """
    names = [port.name for port in ports]
    wanted = [output.name for output in request.wanted]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise BadRequest(f"unknown output {unknown[0][:80]!r}; there is {', '.join(names)}")
    if len(set(wanted)) != len(wanted):
        raise BadRequest("an output is wanted twice")
    return wanted or names
