"""Bundles as contestants: each on every backend that runs it here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from sam_deploy.bench.contestant import Contestant, Run
from sam_deploy.manifest import Manifest
from sam_deploy.runtime import BACKENDS


def bundle_contestants(
    folder: Path, manifest: Manifest, backends: Sequence[str] = BACKENDS
) -> Iterator[Contestant]:
    """The bundle in `folder` on each of `backends`; one that does not run here says so."""
    for backend in backends:
        if backend in ("tensorrt", "tensorrt-rtx") and all(
            plan.flavour != backend for plan in manifest.plans
        ):
            continue
        yield Contestant(
            name=f"{manifest.name} on {backend}",
            side="ours",
            precision=manifest.recipe.precision,
            tolerances=manifest.recipe.tolerances,
            make=partial(_make, str(folder), backend),
        )


def _make(folder: str, backend: str) -> Run:
    from sam_deploy.runtime import load

    return load(folder, backend).run
