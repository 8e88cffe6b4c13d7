"""`sam-parity`: a bundle held against the PyTorch model that it was made from."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam_deploy.cli._parity_pages import check_pages, write_pages, write_receipt
from sam_deploy.cli._parity_rows import parity_rows
from sam_deploy.cli._run import exit_with, nobody_reads, parser, print_json, printable, run
from sam_deploy.cli._tables import Row, print_rows
from sam_deploy.errors import EXIT_CHECK_FAILED, InputError
from sam_deploy.runtime import BACKENDS

if TYPE_CHECKING:
    from sam_deploy.verification import Asked, ParityResult

TOLERANCES = {
    "relative_rms": "RMS of the difference over the standard deviation, at most",
    "max_error": "largest difference over the range, at most",
    "cosine": "at least",
    "top1_agreement": "fraction of first classes that are PyTorch's, at least",
    "top1_drop": "points of top-1 on labelled data, at most",
    "top5_drop": "points of top-5 on labelled data, at most",
    "top1_accuracy": "top-1 on labelled data in per cent, at least",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return run(_parser(), lambda arguments: _parity(arguments, given), argv)


def _parity(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    check_pages(arguments)
    # Before torch is loaded: its waiting threads must not spin on the cores of ONNX Runtime.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    result, fixed = _verified(arguments)
    write_pages(arguments, result)
    if arguments.receipt is not None and result.passed:
        write_receipt(arguments, result, given)
    try:
        if arguments.json:
            print_json(result.without_pictures())
        else:
            print_rows([*parity_rows(result), *fixed])
        sys.stdout.flush()
    except BrokenPipeError:  # the verdict stands, whether somebody reads it or not
        nobody_reads()
    if result.passed:
        return 0
    sys.stderr.write(f"error: parity failed: {printable(result.failures[0])}\n")
    return EXIT_CHECK_FAILED


def _verified(arguments: argparse.Namespace) -> tuple[ParityResult, list[Row]]:
    """What was found; with --fix also what was done about it."""
    from sam_deploy.cli._progress import StderrProgress
    from sam_deploy.verification import verify

    asked, progress = _asked(arguments), StderrProgress()
    if arguments.fix is None:
        if arguments.calibration is not None:
            raise InputError("--calibration is for --fix, which calibrates anew. Leave it out.")
        return verify(arguments.bundle, asked, progress), []
    from sam_deploy.verification.fixing import fix_bundle

    done = fix_bundle(
        arguments.bundle,
        asked,
        recipe_file=arguments.fix or None,
        calibration=arguments.calibration,
        progress=progress,
    )
    if done.fix is None:
        return done.result, [("fix", "none is needed")]
    kept = ", ".join(suggestion.group for suggestion in done.fix.added)
    return done.result, [
        ("fix", f"{done.recipe} passes: it keeps {kept} in higher precision"),
        ("export", f"sam-export {done.recipe}"),
    ]


def _asked(arguments: argparse.Namespace) -> Asked:
    from sam_deploy.verification import Asked

    given = {name: getattr(arguments, name) for name in TOLERANCES}
    return Asked(
        weights=arguments.weights,
        model=arguments.model,
        data=arguments.data,
        labels="none" if arguments.no_labels else "required to fit",
        limit=arguments.limit,
        tolerances={name: value for name, value in given.items() if value is not None},
        allow_looser=arguments.allow_looser,
        require=tuple(arguments.require),
        resume=not arguments.restart,
        layers=arguments.layers or (arguments.html is not None and not arguments.no_layers),
        latency=arguments.receipt is not None,
        against=arguments.against,
    )


def _recipe_path(text: str) -> Path | str:
    """A path; '' where there is none."""
    return Path(text) if text else text


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "Hold a bundle against the PyTorch model that it was made from: every artefact that runs "
        "here, on your data.",
        prog="sam-parity",
        epilog="Exit codes: 0 passed, 1 failed, 2 bad input (a damaged bundle, other weights), "
        "3 this machine lacks something, 70 our bug, 130 interrupted.",
    )
    made.add_argument("bundle", type=Path)
    what = made.add_argument_group("against what, on what")
    what.add_argument(
        "--weights", type=Path, help="the checkpoint that was exported; its hash must be the one"
    )
    what.add_argument(
        "--model", help="package.module:factory, where the bundle is of a network of your own"
    )
    what.add_argument(
        "--data",
        type=Path,
        metavar="DIR|FILE.npz",
        help="images, in a folder for each class where classes are known; or arrays, with labels",
    )
    what.add_argument("--limit", type=int, metavar="N", help="so many samples, spread over all")
    what.add_argument("--no-labels", action="store_true", help="folders of --data are no classes")
    what.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="BACKEND",
        help=f"{', '.join(BACKENDS)}: exit 3 where it does not run; repeatable",
    )
    what.add_argument(
        "--restart", action="store_true", help="begin anew where an earlier run was interrupted"
    )
    where = made.add_argument_group("where it broke")
    where.add_argument(
        "--layers", action="store_true", help="the error behind every module (--html has it too)"
    )
    where.add_argument("--no-layers", action="store_true", help="--html without that")
    where.add_argument(
        "--fix",
        nargs="?",
        type=_recipe_path,
        const="",
        metavar="RECIPE.toml",
        help="where it fails, write the recipe that passes beside this one (or the bundle)",
    )
    where.add_argument(
        "--calibration",
        metavar="DIR|FILE.npz|synthetic",
        help="of INT8 and FP8 for --fix (default: the recipe's, else three in four of --data)",
    )
    limits = made.add_argument_group("tolerances (the recipe's; these may only tighten them)")
    for name, meaning in TOLERANCES.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="X", help=meaning)
    limits.add_argument(
        "--allow-looser", action="store_true", help="let those above loosen the recipe's"
    )
    pages = made.add_argument_group("reports, beside the table on stdout")
    pages.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML for CI servers")
    pages.add_argument("--markdown", type=Path, metavar="FILE", help="for a job's summary")
    pages.add_argument("--html", type=Path, metavar="FILE", help="one self-contained page")
    receipts = made.add_argument_group("receipts")
    receipts.add_argument(
        "--receipt", type=Path, metavar="FILE.json", help="keep one of a bundle that passed"
    )
    receipts.add_argument(
        "--against",
        type=Path,
        metavar="FILE.json",
        help="fail where parity, nodes, rules, size or latency moved beyond the recipe's drift",
    )
    return made


if __name__ == "__main__":
    exit_with(main)
