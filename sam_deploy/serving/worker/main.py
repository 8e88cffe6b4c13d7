"""The worker's own process: `python -m sam_deploy.serving.worker.main SOCKET INPUTS OUTPUTS`.

The three are file descriptors. It ends when the server's end of the socket closes; signals that
reach the whole group are the server's to act on.
"""

from __future__ import annotations

import signal
import socket
import sys
import traceback
from pathlib import Path

import numpy as np

from sam_deploy.errors import SamDeployError
from sam_deploy.runner import Arrays
from sam_deploy.runtime import Engine, load
from sam_deploy.serving.worker.job import (
    MOST_BYTES,
    Begin,
    Done,
    Job,
    Message,
    Ready,
    decode,
    encode,
    failed,
)
from sam_deploy.serving.worker.memory import Memory


def main(argv: list[str]) -> int:
    """Serve jobs until the server is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(argv[0]))
    inputs, outputs = Memory(int(argv[1])), Memory(int(argv[2]))
    try:
        begin = decode(connection.recv(MOST_BYTES))
        assert isinstance(begin, Begin)
        try:
            engine, ready = _loaded(begin)
        except Exception as error:
            _say(error)
            connection.send(encode(failed(error)))
            return 1
        connection.send(encode(ready))
        while data := connection.recv(MOST_BYTES):
            job = decode(data)
            assert isinstance(job, Job)
            connection.send(encode(_done(engine, job, inputs, outputs)))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server is gone
    return 0


def _loaded(begin: Begin) -> tuple[Engine, Ready]:
    engine = load(
        Path(begin.bundle), begin.require, threads=begin.threads, refuse_nan=begin.refuse_nan
    )
    engine.warmup()
    most = engine.profile.max if engine.profile else None
    chosen = engine.chosen
    passed_over = [f"{name}: {why}" for name, why in chosen.passed_over.items()]
    return engine, Ready(engine.backend, chosen.artefact, passed_over, most)


def _done(engine: Engine, job: Job, inputs: Memory, outputs: Memory) -> Message:
    try:
        found = _run(engine, inputs.views(job.inputs))
        return Done(outputs.put({name: [array] for name, array in found.items()}))
    except Exception as error:
        _say(error)
        return failed(error)


def _run(engine: Engine, inputs: Arrays) -> Arrays:
    """As the engine; a batch below a plan's profile is filled up, and the results dropped."""
    rows = len(next(iter(inputs.values())))
    least = engine.profile.min if engine.profile else 1
    if rows >= least or isinstance(engine.manifest.inputs[0].dims[0], int):
        return engine.run(inputs)
    filled = {name: np.resize(array, (least, *array.shape[1:])) for name, array in inputs.items()}
    return {name: array[:rows] for name, array in engine.run(filled).items()}


def _say(error: Exception) -> None:
    if not isinstance(error, SamDeployError):  # the server tells what it is told
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
