"""An ONNX model for many threads: a bounded number of runs at once."""

from __future__ import annotations

from collections.abc import Mapping

from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.onnx_backends import AnyOnnxRunner
from sam_deploy.runtime.pool import Pool


class OnnxContexts:
    """Runs `runner`, which engines of the same bundle may share, `contexts` times at once at most.

    ONNX Runtime and OpenVINO take any number; each run takes memory of its own, and the cores.

    Raises:
        InputError: `contexts` is below 1.
    """

    def __init__(self, runner: AnyOnnxRunner, contexts: int) -> None:
        self._pool = Pool(lambda: _Turn(runner), contexts)
        self.backend = runner.backend
        self.provider = runner.provider

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """One inference, when there is a turn.

        Raises:
            InputError: it is closed.
            MachineError: as the runner's `run`.
        """
        with self._pool.taken() as turn:
            return turn.runner.run(inputs)

    def close(self) -> None:
        """Wait for calls that run, and let the session go. Twice is once."""
        self._pool.close()


class _Turn:
    def __init__(self, runner: AnyOnnxRunner) -> None:
        self.runner = runner

    def close(self) -> None:
        """The session goes with the last that holds it."""
