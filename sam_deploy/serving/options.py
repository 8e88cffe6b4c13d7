"""How a server serves: its limits, and how each model is batched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest
from sam_deploy.serving.batching import BatchOptions
from sam_deploy.serving.worker.job import Ready

_ON_CPU = BatchOptions(max_batch=4, max_delay_ms=0.0)  # batching brings a CPU little
_ON_GPU = BatchOptions(max_batch=32, max_delay_ms=1.0)


@dataclass(frozen=True)
class ServeOptions:
    """`max_batch` and `max_delay_ms` are by model name, that of "" for all that are not named.

    `queue` is how many requests of a model may wait, `timeout_s` how long one may take at most,
    and `max_request_bytes` and `max_image_px` (height times width) how large it may be.
    """

    require: str | None = None
    threads: int = 0
    refuse_nan: bool = False
    max_batch: Mapping[str, int] = field(default_factory=dict)
    max_delay_ms: Mapping[str, float] = field(default_factory=dict)
    queue: int = 256
    timeout_s: float = 60.0
    max_request_bytes: int = 64 << 20
    max_image_px: int = 64_000_000
    reload_s: float | None = 2.0

    def __post_init__(self) -> None:
        """Refuse what no server could keep.

        Raises:
            InputError: naming the option.
        """
        least = {
            "max_batch": min(self.max_batch.values(), default=1),
            "queue": self.queue,
            "max_request_bytes": self.max_request_bytes,
            "max_image_px": self.max_image_px,
        }
        for name, value in least.items():
            if value < 1:
                raise InputError(f"{name} is {value}; expected 1 or more.")
        if min(self.max_delay_ms.values(), default=0.0) < 0 or self.threads < 0:
            raise InputError("max_delay_ms and threads cannot be negative.")
        if self.timeout_s <= 0 or (self.reload_s is not None and self.reload_s <= 0):
            raise InputError("timeout_s and reload_s must be above 0.")

    def batching(self, name: str, manifest: Manifest, ready: Ready) -> BatchOptions:
        """How the model `name` is batched, on what runs it."""
        on_cpu = ready.backend.startswith("onnxruntime") and "CUDA" not in ready.backend
        usual = _ON_CPU if on_cpu else _ON_GPU
        most = ready.profile_max or usual.max_batch
        fixed = manifest.inputs[0].dims[0]
        asked = self.max_batch.get(name, self.max_batch.get(""))
        return BatchOptions(
            max_batch=1 if isinstance(fixed, int) else min(asked or usual.max_batch, most),
            max_delay_ms=self.max_delay_ms.get(name, self.max_delay_ms.get("", usual.max_delay_ms)),
            queue=self.queue,
        )
