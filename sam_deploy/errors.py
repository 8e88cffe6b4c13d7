"""The closed set of errors a user can meet, each with the exit code a command ends with.

An error says what came, what was expected and what to do. Whatever is raised by the package on
purpose derives from `SamDeployError`; anything else that escapes is a bug of ours (exit 70).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_CHECK_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_MACHINE_LACKS = 3
EXIT_OUR_BUG = 70


class SamDeployError(Exception):
    """Base of every error raised on purpose; `exit_code` is what a command returns for it."""

    exit_code = EXIT_OUR_BUG


class InputError(SamDeployError):
    """What the user gave cannot be used as it is: an argument, a recipe, an image, a path."""

    exit_code = EXIT_BAD_INPUT


class CheckpointError(InputError):
    """A checkpoint that cannot be read, is refused, or does not fit the model."""


class BundleError(InputError):
    """A bundle that is missing, damaged, foreign or of another schema."""


class CheckFailed(SamDeployError):
    """A gate said no: parity, an audit, a rewrite that changed the function."""

    exit_code = EXIT_CHECK_FAILED


class RewriteError(CheckFailed):
    """A rule changed what the module computes; the message names the rule."""


class GraphSpecError(CheckFailed):
    """The lowered graph holds something that the written spec does not allow."""


class PrecisionError(CheckFailed):
    """The graph is not in the precision that was asked for."""


class MachineError(SamDeployError):
    """This machine lacks a package, a device or a runtime that the command needs."""

    exit_code = EXIT_MACHINE_LACKS


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the known name closest to `word`, or '' when none is close."""
    found = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""
