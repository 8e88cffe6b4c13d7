"""The report on quantization for people: what each group costs, as a table and a plot, on a page
that needs nothing beside it.
"""

from __future__ import annotations

from html import escape

from sam_deploy.quantization import GroupCost, QuantizationReport

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Quantization of {name}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; max-width: 60rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .15rem .8rem .15rem 0; white-space: nowrap }}
td.figure {{ text-align: right; font-variant-numeric: tabular-nums }}
td.plot {{ width: 50% }}
svg {{ display: block; width: 100%; height: 1em }}
.int rect {{ fill: #2a78c5 }}
.kept rect {{ fill: #c96a2a }}
</style>
<h1>Quantization of {name}</h1>
<p>{summary}</p>
<table>
<tr><th>group<th>layers<th>multiply-adds<th>top-1 agreement<th>relative RMS<th>
{rows}
</table>
<p>Relative RMS of the outputs against FP32 with that group alone quantized. Groups in
<span style="color:#c96a2a">orange</span> stay in floats.</p>
</html>
"""


def quantization_page(name: str, precision: str, report: QuantizationReport) -> str:
    """The page, as HTML."""
    calibration = report.calibration
    summary = (
        f"{len(report.layers)} layers with {report.macs:.1%} of the multiply-adds in "
        f"{precision.upper()}, calibrated by {calibration.method} on {calibration.samples} "
        f"samples ({calibration.data})."
    )
    if report.search is not None:
        search = report.search
        summary += (
            f" Of the sets tried this is the largest that drops at most {search.max_drop:g}: it "
            f"drops {search.drop:.3g} on {search.samples} samples."
        )
    worst = max((cost.relative_rms for cost in report.sensitivity), default=0.0)
    rows = "\n".join(_row(cost, worst) for cost in report.sensitivity)
    return _PAGE.format(name=escape(name), summary=escape(summary), rows=rows)


def _row(cost: GroupCost, worst: float) -> str:
    agreement = "" if cost.top1_agreement is None else f"{cost.top1_agreement:.1%}"
    width = 100 * cost.relative_rms / worst if worst else 0.0
    figures = (str(cost.layers), f"{cost.macs:.1%}", agreement, f"{cost.relative_rms:.2e}")
    cells = "".join(f'<td class="figure">{figure}' for figure in figures)
    bar = f'<svg><rect width="{width:.1f}%" height="100%"/></svg>'
    kind = "kept" if cost.kept else "int"
    return f'<tr class="{kind}"><td>{escape(cost.group)}{cells}<td class="plot">{bar}'
