"""The files that `sam-parity` writes beside its table: whole or not at all."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam_deploy.errors import InputError

if TYPE_CHECKING:
    from sam_deploy.verification.result import ParityResult

PAGES = ("junit", "markdown", "html")


def check_pages(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be written, before the work begins.

    Raises:
        InputError: naming the flag.
    """
    for name in (*PAGES, "receipt"):
        check_file(name, getattr(arguments, name))


def check_file(name: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work begins.

    Raises:
        InputError: naming the flag `name`.
    """
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"--{name} {path}: expected a file's name in a folder that is there.")


def write_pages(arguments: argparse.Namespace, result: ParityResult) -> None:
    """Write those that were asked for; a page of an earlier run is replaced."""
    from sam_deploy.verification.pages import html_page, junit_xml, markdown

    made: dict[str, Callable[[ParityResult], str]] = {
        "junit": junit_xml,
        "markdown": markdown,
        "html": html_page,
    }
    for name in PAGES:
        path: Path | None = getattr(arguments, name)
        if path is not None:
            write_whole(path, made[name](result))


def write_receipt(
    arguments: argparse.Namespace, result: ParityResult, given: Sequence[str]
) -> None:
    """Write the receipt of a bundle that passed; `given` are the command's arguments."""
    from sam_deploy.bundle import read_manifest
    from sam_deploy.verification.receipt import receipt_of, receipt_to_json

    command = shlex.join(["sam-parity", *given])
    receipt = receipt_of(result, read_manifest(arguments.bundle), command)
    write_whole(arguments.receipt, receipt_to_json(receipt))


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, which is never seen half written."""
    if path.exists() and not path.is_file():  # a pipe, /dev/stdout
        path.write_text(text, encoding="utf-8")
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
