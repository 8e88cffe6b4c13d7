"""`sam-export --rebuild`: a bundle gets the plans that it lacks for this machine."""

from __future__ import annotations

import argparse

import msgspec

from sam_deploy.bundle import read_bundle
from sam_deploy.cli._progress import StderrProgress
from sam_deploy.cli._run import print_json
from sam_deploy.cli._tables import plan_row, print_rows
from sam_deploy.errors import InputError
from sam_deploy.plans import PlanOptions
from sam_deploy.validation import struct_from_dict

_TAKES = ("rebuild", "engine", "profile", "compute_capability", "json")


def rebuild_bundle(arguments: argparse.Namespace, made: argparse.ArgumentParser) -> None:
    """Rebuild, and say what was built, what was there, and what was skipped.

    Raises:
        InputError: an argument of an export, which a rebuild does not look at.
    """
    from sam_deploy.engines import rebuild

    ignored = [name for name, value in vars(arguments).items() if value != made.get_default(name)]
    ignored = [name.replace("_", "-") for name in ignored if name not in _TAKES]
    if ignored:
        raise InputError(
            f"--rebuild does not go with {', '.join(ignored)}: it takes the bundle's ONNX as it "
            "is. Besides it takes --engine, --profile, --compute-capability and --json."
        )
    if arguments.engine == ["none"]:
        raise InputError("--rebuild with --engine none would build nothing. Name an engine.")

    done = rebuild(arguments.rebuild, _options(arguments), progress=StderrProgress())
    if arguments.json:
        print_json(
            {
                "bundle": str(arguments.rebuild),
                "built": done.built,
                "kept": done.kept,
                "skipped": done.skipped,
            }
        )
        return
    print_rows(
        [
            ("bundle", str(arguments.rebuild)),
            *[("built", plan_row(plan)) for plan in done.built],
            *[("kept", plan_row(plan)) for plan in done.kept],
            *[("skipped", reason) for reason in done.skipped.values()],
        ]
    )


def _options(arguments: argparse.Namespace) -> PlanOptions | None:
    """The options that flags ask for over the bundle's own; None where there are no flags."""
    asked = {
        "engines": arguments.engine,
        "profile": arguments.profile
        and dict(zip(("min", "opt", "max"), arguments.profile, strict=True)),
        "compute_capabilities": arguments.compute_capability,
    }
    given = {key: value for key, value in asked.items() if value}
    if not given:
        return None
    options = msgspec.to_builtins(read_bundle(arguments.rebuild).recipe.plans)
    if options["engines"] == ["none"]:  # of the export; who rebuilds wants plans
        options["engines"] = ["auto"]
    return struct_from_dict({**options, **given}, PlanOptions, "the arguments")
