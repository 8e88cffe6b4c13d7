"""How fast the bundle's ONNX is beside eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sam_deploy.bundle import MODEL
from sam_deploy.errors import BundleError, MachineError
from sam_deploy.latency import times_ms
from sam_deploy.manifest import Manifest
from sam_deploy.progress import Progress
from sam_deploy.reference import Subject
from sam_deploy.runtime import OnnxRunner
from sam_deploy.verification.result import Latency

_ROUNDS = 30


def measured_latency(
    bundle: Path, manifest: Manifest, subject: Subject, progress: Progress
) -> Latency | None:
    """Of the ONNX on the CPU, if it runs; one thread each and the fastest of the rounds, so that a
    busy machine, or one with fewer cores than it shows, tells nearly the same ratio.
    """
    size = manifest.recipe.batch or 1
    x = {name: np.resize(a, (size, *a.shape[1:])) for name, a in subject.examples().items()}
    typed = {spec.name: x[spec.name].astype(spec.dtype) for spec in manifest.inputs}
    threads = torch.get_num_threads()
    with progress.stage("latency"):
        try:
            torch.set_num_threads(1)
            runner = OnnxRunner(bundle / MODEL, spinning=False, threads=1)
            eager, bundled = times_ms(lambda: subject.run(x), lambda: runner.run(typed), _ROUNDS)
        except (BundleError, MachineError):  # it does not run: the comparison says so
            return None
        finally:
            torch.set_num_threads(threads)
    eager_ms, bundle_ms = min(eager), min(bundled)
    return Latency(
        eager_ms=round(eager_ms, 3),
        bundle_ms=round(bundle_ms, 3),
        ratio=round(eager_ms / bundle_ms, 3),
    )
