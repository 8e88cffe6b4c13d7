"""The members of the TensorRT family as Python modules, imported only when asked for."""

from __future__ import annotations

from collections import deque
from functools import cache
from importlib import import_module
from typing import Any

from sam_deploy.errors import MachineError
from sam_deploy.plans import Flavour

FULL_NAME: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_MODULE: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@cache
def flavour_module(flavour: Flavour) -> Any:
    """The flavour's module.

    Raises:
        MachineError: it is not installed, or does not load.
    """
    remedy = f"Run: pip install 'sam-deploy[{flavour}]'"
    try:
        return import_module(_MODULE[flavour])
    except ModuleNotFoundError:
        raise MachineError(f"{FULL_NAME[flavour]} is not installed. {remedy}") from None
    except Exception as error:  # its libraries load meanwhile: anything can go wrong
        raise MachineError(
            f"{FULL_NAME[flavour]} is installed and does not load: {error}. {remedy}"
        ) from None


@cache
def error_log(flavour: Flavour) -> Any:
    """The flavour's logger, which keeps the last errors in `messages` and prints nothing.

    There is one for the process: TensorRT keeps the first that it is given.
    """
    module = flavour_module(flavour)
    errors = (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR)

    class ErrorLog(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, msg: str) -> None:
            if severity in errors:
                self.messages.append(msg)

    return ErrorLog()


def last_errors(flavour: Flavour) -> str:
    """What TensorRT last complained of, and forgets it: the reason of a call that failed."""
    messages = error_log(flavour).messages
    said = "; ".join(messages)
    messages.clear()
    return said or "it gave no reason"
