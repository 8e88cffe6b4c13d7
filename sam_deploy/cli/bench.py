"""`sam-bench`: how fast bundles are on this machine, beside PyTorch and the stock exports."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam_deploy.cli._bench_table import bench_table
from sam_deploy.cli._parity_pages import check_file, write_whole
from sam_deploy.cli._run import exit_with, parser, print_json, printable, run
from sam_deploy.errors import EXIT_CHECK_FAILED, InputError

if TYPE_CHECKING:
    from sam_deploy.bench.result import BenchResult
    from sam_deploy.verification import Asked


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return run(_parser(), lambda arguments: _bench(arguments, given), argv)


def _bench(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    for name in ("csv", "plot"):
        check_file(name, getattr(arguments, name))
    # Before torch is loaded: of all contestants alike, and waiting threads take nobody's cores.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments.profile:
        return _profile(arguments, given)
    result = _measured(arguments, given)
    if arguments.csv is not None:
        write_whole(arguments.csv, result.csv())
    if arguments.plot is not None:
        from sam_deploy.bench.plot import bench_svg

        write_whole(arguments.plot, bench_svg(result))
    if arguments.json:
        print_json(result)
    else:
        sys.stdout.write(bench_table(result))
    wrong = [one for one in result.left_out if one.side == "ours" and one.disagrees]
    for one in wrong:
        sys.stderr.write(f"error: {printable(f'{one.name}: {one.reason}')}\n")
    return EXIT_CHECK_FAILED if wrong else 0


def _measured(arguments: argparse.Namespace, given: Sequence[str]) -> BenchResult:
    from sam_deploy.bench.bench import bench
    from sam_deploy.cli._progress import StderrProgress

    return bench(
        arguments.bundles,
        _asked(arguments),
        batches=arguments.batch,
        rounds=arguments.rounds,
        threads=arguments.threads,
        peers=not arguments.no_peers,
        command=shlex.join(["sam-bench", *given]),
        progress=StderrProgress(),
    )


def _profile(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    if len(arguments.bundles) != 1 or arguments.csv or arguments.plot:
        raise InputError(
            "--profile is of one bundle and prints a table, or with --json all of it: leave out "
            "--csv, --plot and other bundles."
        )
    from sam_deploy.bench.profile import profile
    from sam_deploy.cli._profile_table import profile_table
    from sam_deploy.cli._progress import StderrProgress

    result = profile(
        arguments.bundles[0],
        _asked(arguments),
        batch=arguments.batch[0],
        rounds=arguments.rounds,
        threads=arguments.threads,
        command=shlex.join(["sam-bench", *given]),
        progress=StderrProgress(),
    )
    if arguments.json:
        print_json(result)
    else:
        sys.stdout.write(profile_table(result))
    return 0


def _asked(arguments: argparse.Namespace) -> Asked:
    from sam_deploy.verification import Asked

    return Asked(weights=arguments.weights, model=arguments.model, data=arguments.data)


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "Time bundles of one model on every backend here, beside PyTorch and the stock exports of "
        "the untouched model. Everything runs in one race, a process each and in turn, and only "
        "what agrees with PyTorch has a time.",
        prog="sam-bench",
        epilog="Exit codes: 0 done, 1 a bundle computes something else, 2 bad input, 3 this "
        "machine lacks something, 70 our bug, 130 interrupted.",
    )
    made.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    what = made.add_argument_group("what")
    what.add_argument("--weights", type=Path, help="the checkpoint that was exported")
    what.add_argument(
        "--model", help="package.module:factory, where the bundle is of a network of your own"
    )
    what.add_argument(
        "--data", type=Path, metavar="DIR|FILE.npz", help="samples (default: what is built in)"
    )
    what.add_argument("--no-peers", action="store_true", help="the bundles alone")
    what.add_argument(
        "--profile",
        action="store_true",
        help="where the time goes: one bundle and the untouched model on ONNX Runtime's CPU "
        "provider, by PyTorch module, at the first --batch",
    )
    how = made.add_argument_group("how")
    how.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="sizes (default: 1 8)"
    )
    how.add_argument("--rounds", type=int, default=15, help="in turn (default: 15)")
    how.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of each (default: all cores)"
    )
    out = made.add_argument_group("output")
    out.add_argument("--csv", type=Path, metavar="FILE", help="a row for each contestant and batch")
    out.add_argument("--plot", type=Path, metavar="FILE.svg", help="the times as bars")
    return made


if __name__ == "__main__":
    exit_with(main)
