"""Where in the user's own Python something happens: the nearest frame that is no library's."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

_OURS = Path(__file__).parent.parent
_FOREIGN = (f"{Path(torch.__file__).parent}/", f"{_OURS}/")
_SYMBOLS = (  # the files of torch between a comparison and what decides it
    "torch/__init__.py",
    "torch/fx/experimental/recording.py",
    "torch/fx/experimental/sym_node.py",
    "torch/fx/experimental/symbolic_shapes.py",
)
_LIBRARIES = ("/site-packages/", "/lib/python")


def current_line(called_by: str) -> str:
    """The innermost user code that the file `called_by` called, as "net.py:31", or ''."""
    stack = traceback.extract_stack()
    first = next((i for i, frame in enumerate(stack) if frame.filename == called_by), 0)
    return _nearest(stack[first:])


def line_of(error: BaseException) -> str:
    """The user's line that `error`, or what caused it, came from, as "net.py:31", or ''."""
    found = ""
    current: BaseException | None = error
    while current is not None:
        # torch writes the user's stack into the message where it traced instead of running
        named = re.findall(r'File "([^"]+)", line (\d+)', str(current))
        written = [traceback.FrameSummary(file, int(line), "") for file, line in named]
        raised = traceback.extract_tb(current.__traceback__)
        found = _nearest(written) or _nearest(raised) or found
        current = current.__cause__ or current.__context__
    return found


def asked_directly(by: str) -> bool:
    """Whether user code itself compares a symbolic size now, seen from inside the file `by`."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename not in (by, __file__) and not frame.filename.endswith(_SYMBOLS):
            return not frame.filename.startswith(_FOREIGN)
    return False


def line_of_forward(module: object) -> str:
    """Where the forward of `module` begins, as "net.py:12", or '' if it is no user code."""
    try:
        forward = type(module).forward  # type: ignore[attr-defined]
        file, line = inspect.getfile(forward), inspect.getsourcelines(forward)[1]
    except (AttributeError, OSError, TypeError):
        return ""
    return _nearest([traceback.FrameSummary(file, line, "")])


def _nearest(frames: Iterable[traceback.FrameSummary]) -> str:
    """The innermost frame of the user's files, or else of what is neither torch's nor ours."""
    others = [f for f in frames if not f.filename.startswith(_FOREIGN)][::-1]
    own = [f for f in others if not any(part in f.filename for part in ("<", *_LIBRARIES))]
    return next((f"{_shown(f.filename)}:{f.lineno}" for f in own or others), "")


def _shown(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file
