"""What a server and its worker say to each other; arrays go through shared memory."""

from __future__ import annotations

import msgspec

from sam_deploy import errors
from sam_deploy.errors import SamDeployError
from sam_deploy.serving.failures import ServingError
from sam_deploy.serving.worker.memory import Place

MOST_BYTES = 1 << 17
"""Of one message: there are few arrays, and reasons are cut."""
_REASON_CHARS = 2000


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """The first: load the bundle in this folder."""

    bundle: str
    require: str | None = None
    threads: int = 0
    refuse_nan: bool = False


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """It is loaded and warm: which artefact, on what, and why on nothing better."""

    backend: str
    artefact: str
    passed_over: list[str] = []
    profile_max: int | None = None


class Job(msgspec.Struct, tag="job", frozen=True):
    """Run these inputs."""

    inputs: list[Place]


class Done(msgspec.Struct, tag="done", frozen=True):
    """They ran."""

    outputs: list[Place]


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """They did not, or the bundle does not load; `kind` is the error's class."""

    kind: str
    reason: str


Message = Begin | Ready | Job | Done | Failed
_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """For the socket."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """From the socket."""
    message: Message = _decoder.decode(data)
    return message


def failed(error: Exception) -> Failed:
    """As it is told to the server."""
    return Failed(type(error).__name__, str(error)[:_REASON_CHARS])


def error_of(message: Failed) -> Exception:
    """The error that the worker met, as one of ours where it was."""
    known = getattr(errors, message.kind, None)
    if isinstance(known, type) and issubclass(known, SamDeployError):
        return known(message.reason)
    return ServingError(f"the engine failed: {message.kind}: {message.reason}")
