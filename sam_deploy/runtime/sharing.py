"""Sessions that engines of one process share, and with them a model's weights in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from sam_deploy.runtime.onnx_runner import OnnxRunner


class _Key(NamedTuple):
    sha256: str
    provider: str
    threads: int


_runners: WeakValueDictionary[_Key, OnnxRunner] = WeakValueDictionary()
_making = threading.Lock()


def shared_runner(path: Path, sha256: str, provider: str, threads: int) -> OnnxRunner:
    """A runner of the file with this hash: one that is in use already, or a new one of `path`.

    Raises:
        MachineError, BundleError: as `OnnxRunner`.
    """
    key = _Key(sha256, provider, threads)
    with _making:
        runner = _runners.get(key)
        if runner is None:
            runner = _runners[key] = OnnxRunner(path, provider, threads=threads)
        return runner
