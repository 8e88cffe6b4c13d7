"""What a bundle is, as a table of two columns."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sam_deploy.bundle import QUANTIZATION
from sam_deploy.cli._run import printable
from sam_deploy.manifest import Manifest
from sam_deploy.parity.judge import output_figures
from sam_deploy.parity_report import Accuracy, OutputParity, ParityReport
from sam_deploy.plans import PlanInfo
from sam_deploy.quantization import TARGETS
from sam_deploy.recipe import Tolerances

Row = tuple[str, str]


def print_rows(rows: list[Row]) -> None:
    """Print the rows on stdout, wrapped to a terminal and unwrapped in a file."""
    rows = [(printable(name), printable(value)) for name, value in rows]
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in rows), default=0)
        sys.stdout.writelines(f"{name:{width}}  {value}".rstrip() + "\n" for name, value in rows)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, markup=False, emoji=False).print(table)


def bundle_rows(bundle: Path, manifest: Manifest) -> list[Row]:
    """What there is to know: model, weights, graph, precision, parity, size, how to load."""
    size = sum(info.bytes for info in manifest.files.values())
    return [
        ("bundle", f"{bundle} ({size / 1e6:.1f} MB)"),
        ("model", _model(manifest)),
        ("weights", _weights(manifest)),
        ("input", _tensors(manifest, "inputs")),
        ("output", _tensors(manifest, "outputs")),
        ("graph", _graph(manifest)),
        *_rewrites(manifest),
        ("precision", _precision(manifest)),
        *_islands(manifest),
        *_quantization(manifest),
        *[row for report in manifest.parity for row in parity_rows_of(report)],
        *[("plan", _plan(manifest, plan)) for plan in manifest.plans],
        *[("verdict", verdict.text) for verdict in manifest.verdicts],
        ("load", f'sam_deploy.load("{bundle}")'),
    ]


def plan_row(plan: PlanInfo) -> str:
    """A plan's passport in a line."""
    targets = ", ".join(plan.compute_capabilities) or "its default"
    sizes = plan.profile
    batches = f", batch {sizes.min} to {sizes.max} (tuned for {sizes.opt})" if sizes else ""
    return (
        f"{plan.file} ({plan.bytes / 1e6:.1f} MB): {plan.flavour} {plan.version}, compute "
        f"capability {targets}{batches}, built in {plan.build_s:.1f} s"
    )


def _plan(manifest: Manifest, plan: PlanInfo) -> str:
    ran = any(report.artefact == plan.file for report in manifest.parity)
    return plan_row(plan) + ("" if ran else "; audited, NOT RUN: no GPU for it was here")


def _quantization(manifest: Manifest) -> list[Row]:
    report = manifest.precision.quantization
    if report is None:
        return []
    calibration = report.calibration
    rows = [
        (
            "quantized",
            f"{len(report.layers)} layers with {report.macs:.1%} of the multiply-adds; "
            f"for {TARGETS[report.target]}; "
            f"{report.smoothed} inputs smoothed; {calibration.method} on {calibration.samples} "
            f"{calibration.data} samples",
        )
    ]
    for cost in report.sensitivity[:10]:
        agreement = cost.top1_agreement
        shown = "" if agreement is None else f", top-1 agreement {agreement:.3f}"
        kept = ", kept in floats" if cost.kept else ""
        rows.append(("group", f"{cost.group}: relative RMS {cost.relative_rms:.1e}{shown}{kept}"))
    if len(report.sensitivity) > 10:
        rows.append(("group", f"and {len(report.sensitivity) - 10} more in {QUANTIZATION}"))
    return rows


def _accuracy(found: Accuracy) -> list[str]:
    low, high = found.top1_interval
    lines = [
        f"top-1 {found.top1:.2f} %, PyTorch {found.reference_top1:.2f} %: a drop of "
        f"{found.top1_drop:.2f} points (95 %: {low:.2f} to {high:.2f}) on {found.samples} samples"
    ]
    if found.top5 is not None and found.top5_interval is not None:
        low, high = found.top5_interval
        lines.append(
            f"top-5 {found.top5:.2f} %, PyTorch {found.reference_top5:.2f} %: a drop of "
            f"{found.top5_drop:.2f} points (95 %: {low:.2f} to {high:.2f})"
        )
    return lines


def parity_rows_of(report: ParityReport) -> list[Row]:
    """The verdict, a line for each output, and the accuracy on labelled data."""
    rows = [("parity", line) for line in parity_lines(report)]
    if report.accuracy is not None:
        rows += [("accuracy", line) for line in _accuracy(report.accuracy)]
    return rows


def parity_lines(report: ParityReport) -> list[str]:
    """The verdict on a line, then a line for each output."""
    verdict = "PASSED" if report.passed else "FAILED"
    samples = f"{report.samples} {report.data} samples"
    lines = [f"{verdict}: {report.artefact} on {report.backend} against PyTorch FP32, {samples}"]
    if report.unreadable:
        lines[0] += f" ({report.unreadable} more images could not be read)"
    return lines + [_output_line(output, report.tolerances) for output in report.outputs]


def _output_line(output: OutputParity, limits: Tolerances) -> str:
    return f"{output.name}: " + ", ".join(
        f"{one.what} {one.shown} (at {'most' if one.at_most else 'least'} {one.limit:g})"
        for one in output_figures(output, limits)
    )


def _model(manifest: Manifest) -> str:
    model = manifest.model
    parts = [model.name, model.kind]
    if model.num_classes is not None:
        parts.append(f"{model.num_classes} classes")
    if model.layer_scale:
        parts.append("layer scale")
    return ", ".join([*parts, f"{model.parameters / 1e6:.2f} M parameters"])


def _weights(manifest: Manifest) -> str:
    weights = manifest.weights
    if weights.source == "random":
        return f"random, seed {weights.seed}: NOT TRAINED (give --weights for a checkpoint)"
    if weights.source == "module":
        return f"as they were in the network, SHA-256 {weights.sha256[:16]}"
    averaged = ", the averaged (EMA) copy" if weights.ema else ""
    return f"{weights.file}{averaged}, SHA-256 {weights.sha256[:16]}"


def _tensors(manifest: Manifest, side: str) -> str:
    return "; ".join(
        f"{spec.name} {spec.dtype} ({', '.join(map(str, spec.dims))})"
        for spec in getattr(manifest, side)
    )


def _graph(manifest: Manifest) -> str:
    rewrites, graph = manifest.rewrites, manifest.graph
    return (
        f"{rewrites.operators_before} PyTorch operators before, {rewrites.operators_after} after "
        f"rewriting; {graph.nodes} ONNX nodes, opset {graph.opset}"
    )


def _rewrites(manifest: Manifest) -> list[Row]:
    fired = ", ".join(f"{rule} {count}" for rule, count in manifest.rewrites.fired.items())
    rows = [("rewrites", fired or "none fired")]
    if manifest.tuning is not None:
        rows.append(("tuned", manifest.tuning.text))
    for rule in manifest.rewrites.rules:
        for refusal in rule.refused:
            rows.append(
                ("refused", f"{rule.rule} at {refusal.module or 'the model'}: {refusal.reason}")
            )
    return rows


def _precision(manifest: Manifest) -> str:
    report = manifest.precision
    counts = [
        f"{op} {', '.join(f'{count} {dtype}' for dtype, count in types.items())}"
        for op, types in report.types_by_op.items()
        if op in ("Conv", "Gemm", "MatMul")
    ]
    text = f"{report.precision} ({'; '.join(counts)})"
    if report.largest is not None:
        text += f"; largest value in FP16 {report.largest.value:.3g} at {report.largest.name}"
    if report.islands:
        text += f"; {report.island_macs:.2%} of the multiply-adds in FP32 islands"
    return text


def _islands(manifest: Manifest) -> list[Row]:
    islands = [f"{i.match}: {i.reason}" for i in manifest.precision.islands]
    more = [f"and {len(islands) - 10} more"] if len(islands) > 10 else []
    return [("island", text) for text in [*islands[:10], *more]]
