"""Sessions that engines of one process share, and with them a model's weights in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from sam_deploy.runtime.onnx_backends import AnyOnnxRunner, start_onnx


class _Key(NamedTuple):
    sha256: str
    provider: str
    threads: int
    streams: int
    bf16: bool


_runners: WeakValueDictionary[_Key, AnyOnnxRunner] = WeakValueDictionary()
_making = threading.Lock()


def shared_runner(
    path: Path, sha256: str, provider: str, threads: int, *, streams: int, bf16: bool
) -> AnyOnnxRunner:
    """A runner of the file with this hash: one that is in use already, or a new one of `path`.

    Raises:
        MachineError, BundleError: as `start_onnx`.
    """
    key = _Key(sha256, provider, threads, streams, bf16)
    with _making:
        runner = _runners.get(key)
        if runner is None:
            runner = _runners[key] = start_onnx(
                path, provider, threads=threads, streams=streams, bf16=bf16
            )
        return runner
