"""What was inferred, in the form of the statistics extension.

Triton's "Statistics Extension": counts and nanoseconds since the model was loaded.
`inference_count` is of rows, `execution_count` of batches.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """One more, or several."""
        self.count += count
        self.ns += ns


_KINDS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Statistics:
    """Of one model."""

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    durations: Mapping[str, Duration] = field(
        default_factory=lambda: {kind: Duration() for kind in _KINDS}
    )
    batches: dict[int, Duration] = field(default_factory=dict)

    def executed(self, rows: int, compute_ns: int) -> None:
        """A batch ran."""
        self.inference_count += rows
        self.execution_count += 1
        self.last_inference_ms = int(time.time() * 1e3)
        self.batches.setdefault(rows, Duration()).add(compute_ns)

    def succeeded(self, whole_ns: int, queue_ns: int, compute_ns: int) -> None:
        """A request was answered; what is neither queue nor engine is spent on its tensors."""
        self.durations["success"].add(whole_ns)
        self.durations["queue"].add(queue_ns)
        self.durations["compute_infer"].add(compute_ns)
        self.durations["compute_input"].add(max(whole_ns - queue_ns - compute_ns, 0))
        self.durations["compute_output"].add(0)

    def failed(self, whole_ns: int) -> None:
        """A request was refused, or lost."""
        self.durations["fail"].add(whole_ns)

    def as_protocol(self, name: str, version: str) -> dict[str, Any]:
        """One of the extension's `model_stats`."""
        nothing = {"count": 0, "ns": 0}
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {kind: vars(d).copy() for kind, d in self.durations.items()},
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": nothing,
                    "compute_infer": vars(duration).copy(),
                    "compute_output": nothing,
                }
                for rows, duration in sorted(self.batches.items())
            ],
        }
