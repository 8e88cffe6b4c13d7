"""What a receipt says whatever it was measured on, and where it is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from sam_deploy.manifest import Manifest

ROOT = Path(__file__).parent.parent
RECEIPTS = ROOT / "engines" / "receipts"


def described(manifest: Manifest, machine: dict[str, str]) -> dict[str, Any]:
    """Which bundle this is, the command that measured it, and on what."""
    script = Path(sys.argv[0]).name
    return {
        "bundle": manifest.name,
        "precision": manifest.recipe.precision,
        "command": " ".join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "machine": machine,
        "versions": manifest.versions,
        "weights": manifest.weights,
        "nodes": manifest.graph.nodes,
        "plans": manifest.plans,
        "files": manifest.files,
    }


def keep(record: dict[str, Any], device: str, folder: Path = RECEIPTS) -> Path:
    """Write `record` to <bundle>-<device>.json in `folder`; returns the path."""
    tag = device.lower().replace(" ", "-")
    path = folder / f"{record['bundle']}-{tag}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    return path
