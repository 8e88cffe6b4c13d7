"""`sam-predict`: the most likely classes of images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import sam_deploy
from sam_deploy.cli._run import exit_with, parser, print_json, printable, run
from sam_deploy.cli._tables import print_rows
from sam_deploy.runtime import BACKENDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    made = parser("Classify images with a bundle.", prog="sam-predict")
    made.add_argument("bundle", type=Path)
    made.add_argument("images", nargs="+", type=Path, metavar="image")
    made.add_argument("--top", type=int, default=5, help="classes an image (default 5)")
    made.add_argument("--require", metavar="BACKEND", help=f"{', '.join(BACKENDS)}: that or none")
    return run(made, _predict, argv)


def _predict(arguments: argparse.Namespace) -> None:
    engine = sam_deploy.load(arguments.bundle, arguments.require)
    if engine.manifest.weights.source == "random":
        sys.stderr.write("note: this bundle's weights are random, so its classes mean nothing\n")
    found = engine.classify(arguments.images, arguments.top)
    results = [(printable(str(p)), f) for p, f in zip(arguments.images, found, strict=True)]
    if arguments.json:
        print_json(
            [
                {"image": path, "predictions": [p._asdict() for p in predictions]}
                for path, predictions in results
            ]
        )
        return
    rows = [
        (path if rank == 0 else "", f"{prediction.score:6.2%}  {prediction.name}")
        for path, predictions in results
        for rank, prediction in enumerate(predictions)
    ]
    print_rows(rows)


if __name__ == "__main__":
    exit_with(main)
