"""Write the generated tables into README.md, export/README.md and engines/README.md.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 if a file is not what would be written

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from _growth import growth_tables
from _races import race_table

from sam_deploy.recipe import read_recipe, size_label
from sam_deploy.rewrites import PIPELINE

ROOT = Path(__file__).parent.parent
CPU_ENGINE = "ONNX Runtime CPU"
PLAN_ENGINES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
PAGES = (
    "README.md",
    "export/README.md",
    "engines/README.md",
    "docs/benchmarks.md",
    "docs/serving.md",
)


def rules() -> str:
    """The pipeline, in its order."""
    lines = ["| rule | identity |", "|---|---|"]
    for rule in PIPELINE:
        link = f"[{rule.name}](sam_deploy/rewrites/rules/{rule.name}.py)"
        lines.append(f"| {link} | `{rule.identity}` |")
    return "\n".join(lines)


def recipes() -> str:
    """The shipped recipes."""
    lines = [
        "| recipe | model | precision | size | relative RMS at most | top-1 agreement at least |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "export").glob("*.toml")):
        recipe = read_recipe(path)
        limits = recipe.tolerances
        lines.append(
            f"| [{path.name}]({path.name}) | {recipe.model} | {recipe.precision} "
            f"| {size_label(recipe.size)} | {limits.relative_rms:g} | {limits.top1_agreement:g} |"
        )
    return "\n".join(lines)


def receipts() -> str:
    """The committed receipts."""
    lines = [
        "| receipt | measured on | relative RMS | top-1 on labelled data, PyTorch's "
        "| speed against eager PyTorch, batch 1 |",
        "|---|---|---|---|---|",
    ]
    for name, record in all_receipts().items():
        link = f"[{name}](receipts/{name}.json)"
        top1 = accuracy(record)
        for run in runs(record):
            ratio = f"{run.ratio:.2f}" if run.ratio else "not measured"
            where = run.where if run.engine == CPU_ENGINE else f"{run.engine} on {run.where}"
            lines.append(f"| {link} | {where} | {run.relative_rms:.1e} | {top1} | {ratio} |")
    return "\n".join(lines)


def accuracy(record: dict[str, Any]) -> str:
    """Top-1 of the bundle and of PyTorch, where a receipt is of labelled data."""
    found = record.get("parity", {}).get("accuracy")
    return f"{found['top1']:.2f} %, {found['reference_top1']:.2f} %" if found else ""


def engines() -> str:
    """Which engines have run, and on what; and of which there are only plans."""
    ran: dict[tuple[str, str], set[str]] = {}
    built: dict[tuple[str, str], set[str]] = {}
    for record in all_receipts().values():
        precision = precision_of(record)
        for run in runs(record):
            ran.setdefault((run.engine, precision), set()).add(run.where)
        for plan in record.get("plans", []):
            key = (PLAN_ENGINES[plan["flavour"]], precision)
            built.setdefault(key, set()).add(plan["version"])
    lines = [
        "| engine | precision | has run, within its tolerances, on | plans built, by version |",
        "|---|---|---|---|",
    ]
    for engine in [CPU_ENGINE, "ONNX Runtime CUDA", *PLAN_ENGINES.values()]:
        known = [p for p in PRECISIONS if (engine, p) in ran.keys() | built.keys()]
        if not known:
            lines.append(f"| {engine} | any | nothing yet | |")
        for precision in known:
            where = "; ".join(sorted(ran.get((engine, precision), set()))) or "nothing yet"
            without = "none recorded" if engine in PLAN_ENGINES.values() else "needs none"
            plans = ", ".join(sorted(built.get((engine, precision), set()))) or without
            lines.append(f"| {engine} | {precision.upper()} | {where} | {plans} |")
    return "\n".join(lines)


class Run(NamedTuple):
    """A bundle that ran within its tolerances; `ratio` is to eager PyTorch, at batch 1."""

    engine: str
    where: str
    relative_rms: float
    ratio: float | None


def runs(record: dict[str, Any]) -> list[Run]:
    """What a receipt says of the CPU, or of the engines that passed on a GPU."""
    machine = record["machine"]
    if "engines" not in record:
        if not record["passed"]:
            return []
        where = f"{machine['cpu']}, {machine['cores']} cores"
        return [Run(CPU_ENGINE, where, worst(record["parity"]), record["batch 1"]["ratio"])]
    times = record.get("batch 1", {})
    eager_ms = times.get("torch eager FP16", {}).get("median_ms")
    found = []
    for name, outcome in record["engines"].items():
        if outcome.get("passed"):
            engine_ms = times.get(name, {}).get("median_ms")
            ratio = eager_ms / engine_ms if eager_ms and engine_ms else None
            found.append(Run(name, machine["gpu"], worst(outcome["parity"]), ratio))
    return found


def worst(parity: dict[str, Any]) -> float:
    """The largest relative RMS of its outputs."""
    return max(float(output["relative_rms"] or 0) for output in parity["outputs"])


def precision_of(record: dict[str, Any]) -> str:
    """What the bundle's precision is; receipts from before it was written have it in the name."""
    named = [p for p in PRECISIONS if f"-{p}" in record["bundle"]]
    return str(record.get("precision") or named[0])


def all_receipts() -> dict[str, dict[str, Any]]:
    """The committed receipts by name."""
    paths = sorted((ROOT / "engines" / "receipts").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def forms() -> str:
    """The published race of forms on the CPU."""
    record = result("forms-smt_t-x86-2core")
    ratios = record["ratios"]
    lines = [
        *measured(record),
        "",
        "| heads, aggregation, projections, linear | nodes | batch 1 | batch 8 |",
        "|---|---|---|---|",
    ]
    for name in sorted(ratios, key=lambda name: -min(ratios[name].values())):
        one, eight = ratios[name]["batch 1"], ratios[name]["batch 8"]
        shown = f"**{name}** (the default)" if name == record["default"] else name
        lines.append(f"| {shown} | {record['nodes'][name]} | {one:.2f} | {eight:.2f} |")
    return "\n".join(lines)


def races(model: str = "*") -> str:
    """The published runs of sam-bench on `model`."""
    records = [
        result(path.stem)
        for path in sorted((ROOT / "benchmarks/results").glob(f"bench-{model}-*.json"))
    ]
    return "\n\n".join("\n".join([*measured(r), "", *race_table(r)]) for r in records)


def growth() -> str:
    """How costs grow."""
    (path,) = (ROOT / "benchmarks/results").glob("growth-*.json")
    record = result(path.stem)
    return "\n".join([*measured(record), "", *growth_tables(record)]).rstrip()


def export_cost() -> str:
    """What whole exports cost."""
    record = result("export-cost-x86-2core")
    lines = [*measured(record), "", "| command | time | most memory | bar |", "|---|---|---|---|"]
    for cost in record["costs"].values():
        lines.append(
            f"| `{cost['command']}` | {cost['seconds']:.0f} s | {cost['peak_gb']:.1f} GB "
            f"| {cost['at_most_s']:g} s, {cost['at_most_gb']:g} GB |"
        )
    return "\n".join(lines)


def parity_cost() -> str:
    """What sam-parity takes, at few and at many images."""
    record = result("parity-cost-x86-2core")
    lines = [*measured(record), "", "| images | time | most memory |", "|---|---|---|"]
    for images, cost in record["costs"].items():
        lines.append(f"| {images} | {cost['seconds']:.0f} s | {cost['peak_mb']:.0f} MB |")
    return "\n".join(lines)


def quantizers() -> str:
    """INT8 by us and by others, on the same weights and inputs."""
    record = result("quantizers-smt_t-x86")
    lines = [*measured(record), "", "| quantizer | relative RMS |", "|---|---|"]
    for name, figure in sorted(record["relative RMS"].items(), key=lambda item: item[1]):
        lines.append(f"| {name} | {figure:.4f} |")
    return "\n".join(lines)


def serving() -> str:
    """What serving costs, against direct calls and against Triton."""
    record = result("serving-x86-2core")
    lines = [*measured(record), "", "| what | ratio |", "|---|---|"]
    lines += [f"| {what} | {ratio:.2f} |" for what, ratio in record["ratios"].items()]
    return "\n".join(lines)


def load_time() -> str:
    """Import and load."""
    record = result("load-time-x86-2core")
    lines = [*measured(record), "", "| what | ms |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {ms:.0f} |" for what, ms in record["ms"].items())])


def soak() -> str:
    """Ten minutes beyond capacity."""
    record = result("soak-x86-2core")
    outcomes = record["outcomes"]
    answered = f"{outcomes['right']} right, {outcomes.get('wrong', 0)} wrong"
    others = {k: v for k, v in outcomes.items() if k not in ("right", "wrong", "503")}
    return "\n".join(
        [
            *measured(record),
            "",
            "| sent | answered | refused with 503 | lost | memory after the first minute |",
            "|---|---|---|---|---|",
            f"| {record['sent']} | {answered} | {outcomes.get('503', 0)} | {sum(others.values())} "
            f"| {record['memory_mb']:.0f} MB, {100 * record['memory_growth']:+.1f} % at the end |",
        ]
    )


def faults() -> str:
    """Malformed requests, a stop, and kills."""
    record = result("faults-x86-2core")
    bad, stop, kill = record["malformed"], record["SIGTERM"], record["kill -9"]
    odd = sum(bad["unexpected"].values())
    return "\n".join(
        [
            *measured(record),
            "",
            "| fault | what came of it |",
            "|---|---|",
            f"| {bad['requests']} malformed requests over REST and gRPC | {odd} answers of 500, "
            f"{bad['restarts']:.0f} restarts; the next good one was answered |",
            f"| SIGTERM with {stop['in flight']} in flight | {stop['answered']} answered, exit "
            f"{stop['exit']} |",
            f"| kill -9 of the worker, {kill['kills']} times under load | "
            f"{kill['restarts']:.0f} restarts counted; {kill['answered']} of {kill['asked']} "
            "requests answered |",
        ]
    )


def ray() -> str:
    """What clients notice when a node of a Ray cluster is lost."""
    record = result("ray-node-loss-x86-2core")
    return "\n".join(
        [
            *measured(record),
            "",
            "| nodes killed | Ray noticed after | seconds | requests | retried | longest | lost |",
            "|---|---|---|---|---|---|---|",
            f"| {record['nodes lost']} | {max(record['noticed_s']):.0f} s at most "
            f"| {record['seconds']:.0f} | {record['requests']} | {record['retried']} "
            f"| {record['longest_s']:.1f} s | {record['lost']} |",
        ]
    )


def result(name: str) -> dict[str, Any]:
    """A committed result of a benchmark."""
    record: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    return record


def measured(record: dict[str, Any]) -> list[str]:
    """Command, machine and versions."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    vectors = f" ({machine['vectors']})" if machine.get("vectors") else ""
    where = f"{machine['cpu']}{vectors}, {machine['cores']} cores"
    return [f"`{record['command']}` on {where}; {versions}."]


TABLES = {
    "rules": rules,
    "recipes": recipes,
    "receipts": receipts,
    "engines": engines,
    "forms": forms,
    "races": races,
    "race": partial(races, "smt_t"),
    "growth": growth,
    "export_cost": export_cost,
    "parity_cost": parity_cost,
    "quantizers": quantizers,
    "load_time": load_time,
    "ray": ray,
    "serving": serving,
    "soak": soak,
    "faults": faults,
}


def written(text: str) -> str:
    """`text` with every table made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


def main() -> int:
    """Write or check the pages."""
    stale = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = written(before)
        if before != after:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(after)
    if "--check" in sys.argv and stale:
        print(f"stale: {', '.join(stale)}. Run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
