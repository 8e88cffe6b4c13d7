"""Where in the network the error of a bundle comes from, and whether it is rewritten as it was."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

from sam_deploy.bundle import MODEL
from sam_deploy.manifest import Manifest
from sam_deploy.parity import Samples
from sam_deploy.progress import Progress
from sam_deploy.reference import Subject
from sam_deploy.report import RewriteReport
from sam_deploy.verification.result import Check, LayersReport

REWRITES = "rewrites"


def where_it_broke(
    bundle: Path, manifest: Manifest, subject: Subject, samples: Samples, progress: Progress
) -> tuple[LayersReport, Check]:
    """The ONNX of the bundle against the reference, module by module; and whether the reference is
    rewritten by the rules that the manifest lists.

    Raises:
        CheckFailed: the reference cannot be rewritten or lowered any more.
        BundleError: ONNX Runtime refuses the bundle's file with its inner values as outputs.
        ModuleNotFoundError: what an export needs is not installed.
    """
    from sam_deploy.exporter.lowered import lowered
    from sam_deploy.verification.layers import measure_layers

    graph, rewrites, _ = lowered(subject, manifest.recipe, progress)
    with tempfile.TemporaryDirectory() as work:
        report = measure_layers(
            bundle / MODEL,
            graph,
            subject,
            manifest.recipe,
            samples,
            artefact=MODEL,
            work=Path(work),
            progress=progress,
        )
    return report, _rewritten(manifest, rewrites)


def _rewritten(manifest: Manifest, now: RewriteReport) -> Check:
    was = manifest.rewrites.fired
    changed = [
        f"{rule} fired {was.get(rule, 0)} times in the bundle, {now.fired.get(rule, 0)} now"
        for rule in {**was, **now.fired}
        if was.get(rule, 0) != now.fired.get(rule, 0)
    ]
    if not changed:
        return Check(name=REWRITES, passed=True, detail="every rule fires as often as it did")
    made, here = manifest.versions.get("sam-deploy"), version("sam-deploy")
    if made != here:  # rules may be others there
        changed.append(f"the bundle is of sam-deploy {made}, this is {here}")
    return Check(name=REWRITES, passed=False if made == here else None, detail="; ".join(changed))
