"""Is OpenVINO faster than ONNX Runtime on this machine? Measured once for each graph, and kept."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from sam_deploy.bundle import MODEL
from sam_deploy.cache_folder import cache_folder, keep
from sam_deploy.cpu_info import machine
from sam_deploy.errors import BundleError, MachineError
from sam_deploy.example import read_example
from sam_deploy.latency import speed_ratio
from sam_deploy.manifest import Manifest
from sam_deploy.runner import Arrays, Runner
from sam_deploy.runtime.onnx_backends import allows_bf16
from sam_deploy.runtime.onnx_runner import CPU, OnnxRunner, require_onnxruntime
from sam_deploy.runtime.openvino import openvino_lacks, openvino_version
from sam_deploy.runtime.threads import usable_cores, usual_threads

_log = logging.getLogger(__name__)
_FORM = 1  # of what is kept: another number is another file
OPENVINO_GAIN = 1.05
"""Of a ratio to ONNX Runtime, which is a little faster with threads that spin."""
_MOST_S = 3.0  # for the rounds, where a call takes long
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 15


class OpenVINORace:
    """OpenVINO against ONNX Runtime's CPU provider on the bundle in `folder`, a sample at a time
    where its batch is free.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int, contexts: int) -> None:
        self._folder, self._manifest = folder, manifest
        self._threads, self._contexts = threads, contexts

    def known(self) -> str | None:
        """Why OpenVINO is not to be taken, where an earlier race found that."""
        if openvino_lacks():
            return None
        ratio = self._remembered()
        return None if ratio is None else _slower(ratio)

    def run(self, runner: Runner) -> str | None:
        """Why OpenVINO, which is `runner`, is not to be taken; None where it is the faster, or
        there is no ONNX Runtime that could run it.
        """
        if (ratio := self._remembered()) is not None:
            return _slower(ratio)
        _log.info(
            "%s: racing OpenVINO and ONNX Runtime for some seconds, once on this machine",
            self._manifest.name,
        )
        inputs = self._inputs()
        try:
            # Threads of the one that spin while they wait would take the other's cores.
            rival = OnnxRunner(self._folder / MODEL, CPU, spinning=False, threads=self._threads)
        except (BundleError, MachineError):
            return None
        start = time.perf_counter()
        for one in (runner, rival):
            one.run(inputs)
        rounds = int(_MOST_S / max(time.perf_counter() - start, 1e-6))
        rounds = min(max(rounds, _LEAST_ROUNDS), _MOST_ROUNDS)
        ratio = speed_ratio(partial(runner.run, inputs), partial(rival.run, inputs), rounds)
        with suppress(OSError, RuntimeError):
            keep(self._kept(), msgspec.json.encode(ratio))
        return _slower(ratio)

    def _remembered(self) -> float | None:
        # RuntimeError: a user without a home. MachineError: no ONNX Runtime to be compared with.
        with suppress(OSError, RuntimeError, MachineError, msgspec.DecodeError):
            return msgspec.json.decode(self._kept().read_bytes(), type=float)
        return None

    def _kept(self) -> Path:
        """The file of this race: of this graph, these versions and this machine."""
        known = [
            _FORM, self._manifest.files[MODEL].sha256, allows_bf16(self._manifest.recipe),
            openvino_version(), str(require_onnxruntime().__version__), machine(),
            self._threads or usual_threads(), self._contexts, usable_cores(),
        ]  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode(known)).hexdigest()
        return cache_folder() / f"openvino-{digest[:32]}.json"

    def _inputs(self) -> Arrays:
        given = read_example(self._folder, self._manifest).inputs
        free = {s.name for s in self._manifest.inputs if s.dims and isinstance(s.dims[0], str)}
        return {name: array[:1] if name in free else array for name, array in given.items()}


def _slower(ratio: float) -> str | None:
    if ratio >= OPENVINO_GAIN:
        return None
    return f"it is {ratio:.2f} times as fast as ONNX Runtime on this machine, one sample at a time"
