"""What the application of Ray Serve takes, from `serve run`, a YAML file or sam-serve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sam_deploy.errors import InputError
from sam_deploy.serving.options import ServeOptions


class RayArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the application takes. `bundle` may be several, with commas or as a list.

    `min_replicas` and `max_replicas` are autoscaled between so that each has
    `target_ongoing_requests`; `num_cpus` and `num_gpus` are a replica's, and `threads` are as many
    as its CPUs unless told. The rest is as sam-serve has it.
    """

    bundle: str | list[str]
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 4.0
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    require: str | None = None
    threads: int = 0
    refuse_nan: bool = False
    max_batch: dict[str, int] = {}
    max_delay_ms: dict[str, float] = {}
    queue: int = 256
    timeout_s: float = 60.0
    max_request_mb: float = 64.0
    max_image_mpx: float = 64.0
    reload_s: float | None = 2.0
    token_file: str | None = None
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Refuse what Ray would say in many words.

        Raises:
            ValueError: naming the argument; msgspec makes a ValidationError of it.
        """
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(
                f"{self.min_replicas} to {self.max_replicas} replicas; expected 1 or more, and "
                "the first no more than the second"
            )
        if self.target_ongoing_requests <= 0 or self.num_cpus < 0 or self.num_gpus < 0:
            raise ValueError("target_ongoing_requests must be above 0, and no resource below")

    @property
    def bundles(self) -> list[Path]:
        """Where they are, on every node."""
        named = self.bundle.split(",") if isinstance(self.bundle, str) else self.bundle
        return [Path(name).resolve() for name in named]

    @property
    def options(self) -> ServeOptions:
        """The handler's.

        Raises:
            InputError: one is none.
        """
        return ServeOptions(
            require=self.require,
            # Ray counts CPUs and does not confine to them: replicas would fight over all cores.
            threads=self.threads or max(1, round(self.num_cpus)),
            refuse_nan=self.refuse_nan,
            max_batch=self.max_batch,
            max_delay_ms=self.max_delay_ms,
            queue=self.queue,
            timeout_s=self.timeout_s,
            max_request_bytes=int(self.max_request_mb * 2**20),
            max_image_px=int(self.max_image_mpx * 10**6),
            reload_s=self.reload_s,
        )


def ray_args(given: Mapping[str, Any]) -> RayArgs:
    """From a mapping; texts are read as what they should be.

    Raises:
        InputError: an argument is missing, unknown, or no value for it.
    """
    try:
        return msgspec.convert(dict(given), RayArgs, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"arguments of Ray Serve: {error}.") from None
