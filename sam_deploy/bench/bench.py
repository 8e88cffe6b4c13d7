"""One run: the bundles' contestants and their peers, on the same samples against one reference."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sam_deploy.bench.contestant import Contestant
from sam_deploy.bench.gpu_peers import gpu_contestants
from sam_deploy.bench.ours import bundle_contestants
from sam_deploy.bench.peers import export_contestants, torch_contestants
from sam_deploy.bench.race import race
from sam_deploy.bench.result import BenchResult, LeftOut, check_numbers, versions
from sam_deploy.bench.samples import example_of
from sam_deploy.bundle import read_bundle
from sam_deploy.cpu_info import machine
from sam_deploy.errors import InputError, MachineError
from sam_deploy.manifest import Manifest
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.progress import Progress
from sam_deploy.reference import Subject
from sam_deploy.runner import Arrays
from sam_deploy.verification import Asked
from sam_deploy.verification.bundle_reference import bundle_reference

_CALIBRATION = 128  # samples


def bench(
    bundles: Sequence[Path],
    asked: Asked,
    *,
    batches: Sequence[int],
    rounds: int,
    threads: int,
    peers: bool,
    command: str,
    progress: Progress,
) -> BenchResult:
    """Time the bundles on every backend here, and what else there is for their weights.

    `asked` says which weights and data, as for `verify`. `threads` is what the caller put into
    OMP_NUM_THREADS before torch was loaded.

    Raises:
        InputError: no bundle, a bad number, or bundles of different weights or inputs.
        BundleError: a bundle is damaged.
        MachineError: none of the bundles runs here; says why.
    """
    check_numbers(batches, rounds, threads)
    manifests = [read_bundle(folder) for folder in bundles]
    _check_alike(bundles, manifests)
    with progress.stage("reference"):
        subject = bundle_reference(manifests[0], asked)
        examples = {batch: example_of(subject, asked, batch) for batch in batches}
    contestants: list[Contestant] = []
    left_out: list[LeftOut] = []
    with tempfile.TemporaryDirectory() as folder:
        for path, manifest in zip(bundles, manifests, strict=True):
            contestants += bundle_contestants(path, manifest)
        if peers:
            contestants += torch_contestants(bundles[0], asked)
            on_gpu, lacking = gpu_contestants(bundles[0], asked)
            contestants += on_gpu
            with progress.stage("exports"):
                exported, left_out = export_contestants(
                    subject, _calibration(subject, asked), Path(folder)
                )
            contestants += exported
            left_out += lacking
        if peers:
            progress.note("torch.compile compiles for every batch, which takes a minute or more")
        entries, failed = race(contestants, examples, rounds, progress)
    ours = [one for one in failed if one.side == "ours"]
    if all(entry.side != "ours" for entry in entries) and not any(one.disagrees for one in ours):
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in ours)
        raise MachineError(f"no bundle runs here: {reasons}")
    return BenchResult(
        command=command,
        machine=machine(),
        versions=versions(),
        threads=threads,
        rounds=rounds,
        entries=entries,
        left_out=left_out + failed,
    )


def _check_alike(bundles: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    names = [manifest.name for manifest in manifests]
    if len(set(names)) != len(names):
        raise InputError(f"two bundles are called {max(names, key=names.count)}; name each once.")
    first = manifests[0]
    for path, other in zip(bundles[1:], manifests[1:], strict=True):
        if other.weights.sha256 != first.weights.sha256:
            raise InputError(
                f"{path} holds other weights than {bundles[0]}: their times are of two models. "
                "Measure each in a run of its own."
            )
        mine, theirs = (
            [(spec.name, spec.dims[1:]) for spec in (*one.inputs, *one.outputs)]
            for one in (first, other)
        )
        if mine != theirs or other.preprocessing != first.preprocessing:
            raise InputError(
                f"{path} takes other inputs, or gives other outputs, than {bundles[0]}. Measure "
                "each in a run of its own."
            )


def _calibration(subject: Subject, asked: Asked) -> Iterator[Arrays]:
    """Samples one by one for who quantizes: the first of those that it is judged on, too."""
    samples = samples_for(subject, asked.data, labels="none", limit=_CALIBRATION)
    yield from samples.filled(None, 1, lambda rows: None)
