"""What TensorRT says while it builds, loads and runs, kept for our own messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sam_deploy.tensorrt_family.member import Member

# Without a driver TensorRT-RTX says after any error that there is none: of no use to a reader.
_NOISE = "catchCudaError"


class Said:
    """The warnings and errors of a time, in their order."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def reasons(self) -> list[str]:
        """The errors, each once; one that says so where there are none."""
        told = list(dict.fromkeys(self.errors))
        return [error for error in told if _NOISE not in error] or told or ["it gave no reason"]

    @property
    def reason(self) -> str:
        """The last of them, in a line."""
        return "; ".join(self.reasons()[-3:])


class Log:
    """One flavour's messages, for whoever gathers them; `logger` is what TensorRT is given."""

    def __init__(self, trt: Any) -> None:
        self._one_build = threading.Lock()
        self._gathering: list[Said] = []
        gathering = self._gathering
        errors = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                for said in tuple(gathering):
                    if severity in errors:
                        said.errors.append(msg)
                    elif severity == trt.ILogger.WARNING:
                        said.warnings.append(msg)

        self.logger = Logger()

    @contextmanager
    def gathered(self) -> Iterator[Said]:
        """What is said within, by whatever thread: TensorRT has some of its own."""
        said = Said()
        self._gathering.append(said)
        try:
            yield said
        finally:
            self._gathering.remove(said)

    @contextmanager
    def of_one_build(self) -> Iterator[Said]:
        """The same, and another thread that builds waits: a warning can refuse a build."""
        with self._one_build, self.gathered() as said:
            yield said


def log_of(member: Member) -> Log:
    """The flavour's only log: TensorRT keeps the first logger while any builder or runtime lives,
    and tells a second one nothing.
    """
    return _logs(member.trt)


@cache
def _logs(trt: Any) -> Log:
    return Log(trt)
