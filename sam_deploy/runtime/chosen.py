"""What runs a bundle here, and why nothing that is preferred to it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Chosen:
    """`name` is what `require` calls it, `backend` what reports do; `passed_over` says, by name and
    in the order of preference, why others were not taken.
    """

    name: str
    backend: str
    artefact: str
    passed_over: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = f"{self.artefact} on {self.backend}"
        if not self.passed_over:
            return said
        reasons = "; ".join(f"not {name}: {why}" for name, why in self.passed_over.items())
        return f"{said} ({reasons})"
