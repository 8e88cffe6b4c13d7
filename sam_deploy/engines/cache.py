"""The timing cache of TensorRT 10 and 11: a file per version and GPU, shared by all builders.

A cache only saves time. Whatever is wrong with one is a note, never a failure. TensorRT-RTX times
nothing while it builds and has none; its runtime cache is the runner's.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sam_deploy.cache_folder import cache_folder
from sam_deploy.plans import Flavour

_SUM_BYTES = hashlib.sha256().digest_size
_LOCK_S = 10.0


def timing_cache_path(flavour: Flavour, version: str, gpu: str, folder: Path | None = None) -> Path:
    """The file for that flavour, version and GPU (its name) in `folder`, else the cache folder."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{flavour} {version} {gpu}".lower())
    return (folder or cache_folder()) / f"{name}.timing-cache"


def read_cache(path: Path) -> tuple[bytes, str | None]:
    """What is kept in `path`, and what is wrong with it; b"" where there is nothing of use."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        return b"", f"the cache {path} cannot be read: {error.strerror}"
    kept = data[_SUM_BYTES:]
    if data[:_SUM_BYTES] != hashlib.sha256(kept).digest():
        return b"", f"the cache {path} is damaged and is not used"
    return kept, None


def update_cache(path: Path, merged: Callable[[bytes], bytes]) -> str | None:
    """Replace what is in `path` by what `merged` makes of it; returns what went wrong.

    `merged` is given b"" where there is nothing. Who updates meanwhile waits, so that nothing
    that either adds is lost; who reads sees the old content or the new.
    """
    from filelock import FileLock  # heavy for what only reads

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_S):
            try:
                content = merged(read_cache(path)[0])
                partial.write_bytes(hashlib.sha256(content).digest() + content)
                partial.replace(path)
            finally:
                with suppress(OSError):
                    partial.unlink()
    except OSError as error:  # filelock's Timeout is one
        return f"the cache {path} is not kept: {error.strerror or error}"
    return None
