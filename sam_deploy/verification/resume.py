"""An interrupted run goes on where it stopped: what was gathered lies in the cache meanwhile."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import msgspec

from sam_deploy.cache_folder import cache_folder
from sam_deploy.parity.accuracy import Hits
from sam_deploy.parity.figures import Sums
from sam_deploy.parity.sample_hash import sample_hashes
from sam_deploy.parity.samples import Samples
from sam_deploy.verification.gallery import Seen

_SNAPSHOT_EVERY_S = 1.0  # what an interrupt loses at most
_WRITE_EVERY_S = 20.0  # what a kill loses at most


class Gathered(msgspec.Struct, kw_only=True):
    """One comparison's part."""

    void: str | None
    sums: list[Sums]
    hits: list[Hits]
    seen: Seen


class State(msgspec.Struct, kw_only=True):
    """How far a run is, and all that it gathered."""

    next: int
    samples: int
    digest: bytes
    unreadable: dict[str, str]
    gathered: list[Gathered]


class Checkpoint:
    """Where the state of one run is kept: the same bundle, data, limit and backends find it."""

    def __init__(self, parts: Sequence[str]) -> None:
        made_with = [version(name) for name in ("sam-deploy", "torch", "numpy", "pillow")]
        named = "\n".join([*made_with, *parts])
        key = hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()
        self._path = cache_folder() / "parity" / f"{key}.state"
        self._latest: bytes | None = None
        self._taken = self._written = time.monotonic()

    def read(self) -> State | None:
        """What an interrupted run left, if it left anything that can be read."""
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.msgpack.decode(self._path.read_bytes(), type=State)
        return None

    def due(self) -> bool:
        """Whether it is time for a new snapshot."""
        return time.monotonic() - self._taken >= _SNAPSHOT_EVERY_S

    def snapshot(self, state: State) -> None:
        """Remember `state`, between two batches; from time to time it goes to the disk.

        One that names a file in no encoding cannot be kept.
        """
        self._taken = time.monotonic()
        with suppress(UnicodeEncodeError):
            self._latest = msgspec.msgpack.encode(state)
        if self._taken - self._written >= _WRITE_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write the last snapshot. A cache that takes none is no reason to give up the run."""
        self._written = time.monotonic()
        if self._latest is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}")  # another run may write it too
            partial.write_bytes(self._latest)
            partial.replace(self._path)

    def remove(self) -> None:
        """The run is done."""
        with suppress(OSError):
            self._path.unlink()


def identity_of(samples: Samples, data: Path | None) -> list[str]:
    """What tells one set of samples from another: of files their names, sizes and times."""
    parts = [samples.kind, str(samples.count), str(samples.labels)]
    if samples.kind == "example":
        parts += sample_hashes(samples)
    paths = [Path(name) for name in samples.names or ()] if samples.kind == "folder" else []
    for path in [*paths, *([data] if data is not None else [])]:
        with suppress(OSError):
            status = path.stat()
            parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return parts
