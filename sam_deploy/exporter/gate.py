"""The parity gate of an export: the written file against the untouched model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sam_deploy.agreement import relative_rms
from sam_deploy.bundle import MODEL, PARITY
from sam_deploy.errors import BundleError, CheckFailed
from sam_deploy.example import ROWS, write_example
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity import PARITY_BATCH, Samples
from sam_deploy.parity.crash import check_loads
from sam_deploy.parity.of_subject import subject_parity
from sam_deploy.parity_report import ParityReport
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.runtime import OnnxRunner
from sam_deploy.runtime.onnx_runner import BIAS_QUANTIZER


def hold(
    subject: Subject,
    recipe: Recipe,
    samples: Samples,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
    folder: Path,
    progress: Progress,
) -> ParityReport:
    """Hold `model.onnx` in `folder` against `subject`, and write beside it `parity.json` and the
    example that engines are tried on.

    Raises:
        CheckFailed: the file does not run, the comparison is void, or a tolerance was broken.
    """
    with progress.stage("parity", samples.count) as advance:
        if subject.own:  # of what we wrote ourselves the graphs are known
            check_loads(folder / MODEL)
        try:
            runner = OnnxRunner(folder / MODEL)
        except BundleError as error:
            raise CheckFailed(f"the exported graph does not load: {error}") from None
        specs = (inputs, outputs)
        report = subject_parity(MODEL, runner, subject, recipe, samples, specs, progress=advance)
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (folder / PARITY).write_bytes(encoded + b"\n")
    if not report.passed:
        reasons = "\n  ".join(report.failures)
        raise CheckFailed(
            f"{MODEL} is not close enough to PyTorch on {report.samples} {report.data} samples:\n"
            f"  {reasons}"
        )
    x = next(samples.filled(recipe.batch, ROWS, lambda rows: None))
    write_example(folder, x, subject.run(x))
    return report


def of_samples(samples: Samples, used: int) -> list[str]:
    """What whoever reads the verdict should know of the samples."""
    notes = []
    if used == 1:
        notes.append(
            "parity was measured on a single sample: a model that ignores its input would pass. "
            "Give more, as rows of the example inputs or as data."
        )
    return notes + samples.left_out()


def in_other_hosts(path: Path, recipe: Recipe, samples: Samples) -> list[str]:
    """Whether ONNX Runtime as other hosts start it spoils the quantized graph at `path`."""
    x = next(samples.filled(recipe.batch, PARITY_BATCH, lambda rows: None))
    ours, plain = OnnxRunner(path), OnnxRunner(path, plain=True)
    given = {spec.name: x[spec.name].astype(spec.dtype) for spec in ours.inputs}
    expected, found = ours.run(given), plain.run(given)
    worst = max(
        (relative_rms(found[n], a) for n, a in expected.items() if a.dtype.kind == "f"), default=0.0
    )
    if worst <= recipe.tolerances.relative_rms / 2:
        return []
    return [
        "sam_deploy.load runs this model as it was checked; ONNX Runtime in other hosts rounds "
        f"its biases (relative RMS {worst:.2g}) unless they create the session with "
        f"disabled_optimizers=[{BIAS_QUANTIZER!r}]."
    ]
