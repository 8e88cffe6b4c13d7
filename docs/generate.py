"""Write the generated tables into README.md, export/README.md and engines/README.md.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 if a file is not what would be written

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from sam_deploy.recipe import read_recipe, size_label
from sam_deploy.rewrites import PIPELINE

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "export/README.md", "engines/README.md", "docs/benchmarks.md")


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
        "| receipt | measured on | relative RMS | speed against eager PyTorch, batch 1 |",
        "|---|---|---|---|",
    ]
    for path in sorted((ROOT / "engines" / "receipts").glob("*.json")):
        record = json.loads(path.read_text())
        machine = record["machine"]
        where = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
        worst = max(output["relative_rms"] for output in record["parity"]["outputs"])
        lines.append(
            f"| [{path.stem}](receipts/{path.name}) | {where} | {worst:.1e} "
            f"| {record['batch 1']['ratio']:.2f} |"
        )
    return "\n".join(lines)


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


def result(name: str) -> dict[str, Any]:
    """A committed result of a benchmark."""
    record: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    return record


def measured(record: dict[str, Any]) -> list[str]:
    """Command, machine and versions."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return [f"`{record['command']}` on {machine['cpu']}, {machine['cores']} cores; {versions}."]


TABLES = {
    "rules": rules,
    "recipes": recipes,
    "receipts": receipts,
    "forms": forms,
    "export_cost": export_cost,
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
