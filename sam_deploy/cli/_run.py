"""What every command shares: how it ends, and where it prints."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

import sam_deploy
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
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EIO", "ENAMETOOLONG", "ENOMEM", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
}


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
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    """Run `command` on the parsed arguments and return its exit code; an error is one message.

    It goes to stderr, with `--json` also to stdout as a JSON object. Only a bug of ours shows a
    traceback.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in given
    interrupted = _noticed_interrupts()
    try:
        command(made.parse_args(given))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output had enough; the flush at exit must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, KeyboardInterrupt) as error:
        if interrupted.is_set() or isinstance(error, KeyboardInterrupt):
            return _failed("interrupted", EXIT_INTERRUPTED, as_json)
        message, code = _explained(error)
        if code == EXIT_OUR_BUG:
            sys.stderr.write(traceback.format_exc())
        return _failed(message, code, as_json)
    return EXIT_DONE


def _noticed_interrupts() -> threading.Event:
    """Ctrl-C and SIGTERM end the command cleanly; set once one came.

    A library may turn the interrupt into an error of its own: it is still no error of the input.
    """
    came = threading.Event()

    def interrupt(_number: int, _frame: object) -> NoReturn:
        came.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
        signal.signal(signal.SIGINT, interrupt)
    return came


def _explained(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, ModuleNotFoundError):
        error = _lacking(error) or error
    if isinstance(error, SamDeployError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return str(error), EXIT_MACHINE_LACKS
    return "this is a bug of sam-deploy: please report it", EXIT_OUR_BUG


def print_json(value: Any) -> None:
    """Print `value` (structs, dicts, lists) as JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def printable(text: str) -> str:
    """`text` with what stdout's encoding lacks escaped: a file's name may be any bytes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def exit_with(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a command's main on the process's arguments and exit with its code."""
    sys.exit(main(None))


def _lacking(error: ModuleNotFoundError) -> MachineError | None:
    """What to install for a package that an extra would have brought."""
    package = (error.name or "").partition(".")[0]
    extra = {"onnxruntime": "cpu"}.get(package, "export")
    known = {"torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "onnxruntime"}
    if package not in known:
        return None
    return MachineError(f"{package} is not installed. Run: pip install 'sam-deploy[{extra}]'")


def _failed(message: str, code: int, as_json: bool) -> int:
    with suppress(BrokenPipeError):
        if as_json:
            print_json({"error": printable(message), "exit_code": code})
        sys.stderr.write(f"error: {printable(message)}\n")
    return code
