"""The kernels that TensorRT-RTX compiled on this GPU, kept for the next process."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from sam_deploy.cache_folder import cache_folder, keep


def runtime_cache_path(flavour: str, version: str, gpu: str, plan_sha256: str) -> Path:
    """The cache's file: one for each plan, so that two services do not write over each other's."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{flavour} {version} {gpu} {plan_sha256[:16]}".lower())
    return cache_folder() / f"{name}.runtime-cache"


class RuntimeCache:
    """A TensorRT-RTX runtime cache in `config`, filled from the file `path` if it fits.

    TensorRT-RTX itself refuses what another version, GPU or driver wrote. A cache that cannot be
    read or written costs the next start some seconds and nothing else, so that is no error.
    """

    def __init__(self, config: Any, path: Path) -> None:
        self._path = path
        self._cache = config.create_runtime_cache()
        self._kept = b""
        with suppress(OSError):
            kept = path.read_bytes()
            if self._cache.deserialize(kept):
                self._kept = kept
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Keep what was compiled since, if anything was: whole or not at all."""
        memory = self._cache.serialize()
        content = b"" if memory is None else bytes(memory)
        if content in (b"", self._kept):
            return
        with suppress(OSError):
            keep(self._path, content)
        self._kept = content
