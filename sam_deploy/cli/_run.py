"""What every command shares: how it ends, and where it prints."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

import sam_deploy
from sam_deploy.errors import (
    EXIT_DONE,
    EXIT_MACHINE_LACKS,
    EXIT_OUR_BUG,
    MachineError,
    SamDeployError,
)

EXIT_INTERRUPTED = 130


def parser(description: str, **kwargs: Any) -> argparse.ArgumentParser:
    """An argument parser with what every command has: `--json` and `--version`."""
    made = argparse.ArgumentParser(description=description, allow_abbrev=False, **kwargs)
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--version", action="version", version=f"sam-deploy {sam_deploy.__version__}")
    return made


def run(command: Callable[[], None], *, as_json: bool) -> int:
    """Run `command` and return its exit code; an error is one message on stderr.

    With `as_json` the error is also a JSON object on stdout. Only a bug of ours shows a traceback.
    """
    try:
        command()
    except SamDeployError as error:
        return _failed(str(error), error.exit_code, as_json)
    except ModuleNotFoundError as error:
        lacking = _lacking(error)
        if lacking is None:
            return _bug(as_json)
        return _failed(str(lacking), EXIT_MACHINE_LACKS, as_json)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was left behind", EXIT_INTERRUPTED, as_json)
    except BrokenPipeError:
        return EXIT_DONE  # whoever read our output had enough
    except Exception:
        return _bug(as_json)
    return EXIT_DONE


def print_json(value: Any) -> None:
    """Print `value` (structs, dicts, lists) as JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


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
    if as_json:
        print_json({"error": message, "exit_code": code})
    sys.stderr.write(f"error: {message}\n")
    return code


def _bug(as_json: bool) -> int:
    sys.stderr.write(traceback.format_exc())
    return _failed("this is a bug of sam-deploy: please report it", EXIT_OUR_BUG, as_json)
