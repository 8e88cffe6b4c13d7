"""`sam-inspect`: what is in a bundle, after verifying it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sam_deploy.bundle import read_bundle
from sam_deploy.cli._run import exit_with, parser, print_json, run
from sam_deploy.cli._tables import bundle_rows, print_rows
from sam_deploy.runtime import load


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    made = parser("Verify a bundle's files and say what is in it.", prog="sam-inspect")
    made.add_argument("bundle", type=Path)
    made.add_argument(
        "--here", action="store_true", help="load it, and say what runs it here and what does not"
    )
    return run(made, _inspect, argv)


def _inspect(arguments: argparse.Namespace) -> None:
    if arguments.here:
        _say_here(arguments.bundle, as_json=arguments.json)
        return
    manifest = read_bundle(arguments.bundle)
    if arguments.json:
        print_json(manifest)
        return
    files = [
        ("file", f"{name} ({info.bytes} bytes, SHA-256 {info.sha256[:16]})")
        for name, info in manifest.files.items()
    ]
    versions = ", ".join(f"{name} {value}" for name, value in manifest.versions.items())
    print_rows([*bundle_rows(arguments.bundle, manifest), *files, ("made with", versions)])


def _say_here(bundle: Path, *, as_json: bool) -> None:
    with load(bundle) as engine:
        chosen = engine.chosen
    if as_json:
        print_json(dataclasses.asdict(chosen))
        return
    rows = [("not " + name, reason) for name, reason in chosen.passed_over.items()]
    print_rows([("runs", f"{chosen.artefact} on {chosen.backend} ({chosen.name})"), *rows])


if __name__ == "__main__":
    exit_with(main)
