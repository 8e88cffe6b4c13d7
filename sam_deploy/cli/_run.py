"""What every command shares: how it ends, and where it prints."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

import sam_deploy
from sam_deploy.bundle.disk_full import FULL
from sam_deploy.errors import (
    EXIT_DONE,
    EXIT_MACHINE_LACKS,
    EXIT_OUR_BUG,
    InputError,
    MachineError,
    SamDeployError,
)

EXIT_INTERRUPTED = 130
# No bug of ours: a full or read-only disk, no permission, no memory, a path that is too long.
_MACHINE = {
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.ENOMEM),
    *(errno.ENOSPC, errno.EPERM, errno.EROFS),
}


_EXTRAS = {
    "onnxruntime": "cpu",
    **dict.fromkeys(("torch", "onnx", "onnx_ir", "onnxscript", "safetensors"), "export"),
    "filelock": "export",
    **dict.fromkeys(("grpc", "grpc_health", "prometheus_client", "starlette"), "serve"),
    **dict.fromkeys(("tritonclient", "uvicorn", "uvloop"), "serve"),
    "ray": "ray",
}
"""What brings a package."""


class _Parser(argparse.ArgumentParser):
    """Arguments that don't parse are bad input like any other."""

    def error(self, message: str) -> NoReturn:
        """Raise what `run` reports in one line, and with `--json` as JSON."""
        raise InputError(f"{message}. See {self.prog} --help.")


def parser(description: str, **kwargs: Any) -> argparse.ArgumentParser:
    """An argument parser with what every command has: `--json` and `--version`."""
    made = _Parser(description=description, allow_abbrev=False, **kwargs)
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--version", action="version", version=f"sam-deploy {sam_deploy.__version__}")
    return made


def run(
    made: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> int:
    """Run `command` on the parsed arguments and return its exit code; an error is one message.

    The message goes to stderr, with `--json` also to stdout as a JSON object. Only a bug of ours
    shows a traceback. A command whose result is a verdict returns the code itself.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in given
    # Without `argv` the process is the command's, and so are its signals.
    interrupts = _Interrupts(signal.SIGINT, signal.SIGTERM) if argv is None else _Interrupts()
    code: int | None = None
    try:
        code = command(made.parse_args(given))
        sys.stdout.flush()
    except BrokenPipeError:
        interrupts.over = True
        nobody_reads()
    except (Exception, KeyboardInterrupt) as error:
        interrupts.over = True
        if interrupts.came or isinstance(error, KeyboardInterrupt):
            return _failed("interrupted", EXIT_INTERRUPTED, as_json)
        message, failed = _explained(error)
        if failed == EXIT_OUR_BUG:
            sys.stderr.write(traceback.format_exc())
        return _failed(message, failed, as_json)
    finally:
        interrupts.over = True
        interrupts.ignore()
    return code or EXIT_DONE


def nobody_reads() -> None:
    """Whoever read our output had enough: what is still to come goes nowhere, and does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Interrupts:
    """Ctrl-C and SIGTERM end the command cleanly; once it is `over` they find nothing to end.

    A library may turn the interrupt into an error of its own: `came` tells that one came, and
    that it is no error of the input.
    """

    def __init__(self, *numbers: int) -> None:
        self.came = False
        self.over = False
        self._numbers = numbers
        for number in numbers:
            signal.signal(number, self._interrupt)

    def ignore(self) -> None:
        """Nor may they kill the interpreter, which takes a second to tear torch down."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, _number: int, _frame: object) -> None:
        self.came = True
        if not self.over:
            raise KeyboardInterrupt


def _explained(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, ModuleNotFoundError):
        error = _lacking(error) or error
    if isinstance(error, SamDeployError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return _of_the_machine(error), EXIT_MACHINE_LACKS
    if isinstance(error, MemoryError) or _lacks_memory(error):
        return (
            "this machine has too little memory. Take a smaller size or batch.",
            EXIT_MACHINE_LACKS,
        )
    return "this is a bug of sam-deploy: please report it", EXIT_OUR_BUG


def _lacks_memory(error: BaseException) -> bool:
    """Whether torch could not allocate: it raises a plain RuntimeError."""
    said = ("can't allocate memory", "size calculation overflowed")
    return isinstance(error, RuntimeError) and any(part in str(error) for part in said)


def _of_the_machine(error: OSError) -> str:
    if error.errno in FULL:
        where = error.filename or "the output"
        return f"cannot write to {where}: {error.strerror}. Free some space."
    return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."


def print_json(value: Any) -> None:
    """Print `value` (structs, dicts, lists) as JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def printable(text: str) -> str:
    """`text` with control characters, and what stdout's encoding lacks, escaped.

    A file's name or a recipe's key may be any bytes, and a terminal obeys some of them.
    """
    plain = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def exit_with(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a command's main on the process's arguments and exit with its code."""
    sys.exit(main(None))


def _lacking(error: ModuleNotFoundError) -> MachineError | None:
    """What to install for a package that an extra would have brought."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return None
    extra = _EXTRAS[package]
    return MachineError(f"{package} is not installed. Run: pip install 'sam-deploy[{extra}]'")


def _failed(message: str, code: int, as_json: bool) -> int:
    with suppress(OSError):  # nobody reads it, or there is no room for it
        if as_json:
            print_json({"error": printable(message), "exit_code": code})
    with suppress(OSError):
        sys.stderr.write(f"error: {printable(message)}\n")
    return code
