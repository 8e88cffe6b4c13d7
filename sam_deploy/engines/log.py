"""What TensorRT says while it parses and builds: warnings and errors, kept for our own messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sam_deploy.engines.family import Member

# Without a driver TensorRT-RTX says after any error that there is none: of no use to a reader.
_NOISE = "catchCudaError"


class Log:
    """One flavour's messages of the current build; `logger` is what TensorRT is given."""

    def __init__(self, trt: Any) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self._one_build = threading.Lock()
        kept = {
            trt.ILogger.WARNING: self.warnings,
            trt.ILogger.ERROR: self.errors,
            trt.ILogger.INTERNAL_ERROR: self.errors,
        }

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in kept:
                    kept[severity].append(msg)

        self.logger = Logger()

    @contextmanager
    def of_one_build(self) -> Iterator[Log]:
        """This log, emptied; another thread that builds waits until this build is done."""
        with self._one_build:
            self.warnings.clear()
            self.errors.clear()
            yield self

    def reasons(self) -> list[str]:
        """The errors, each once."""
        told = list(dict.fromkeys(self.errors))
        return [error for error in told if _NOISE not in error] or told


def log_of(member: Member) -> Log:
    """The flavour's only log: TensorRT keeps the first logger while any builder lives, and tells a
    second one nothing.
    """
    return _logs(member.trt)


@cache
def _logs(trt: Any) -> Log:
    return Log(trt)
