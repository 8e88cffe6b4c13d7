"""What each group adds to the error of the outputs: its own part, and nothing that came before it.

The artefact is cut where its groups end and every part is run on the exact values, so what differs
behind a part was made in it. That difference is then put into the FP32 graph, at this one place:
what arrives at the outputs is the group's own. Such parts of an error are independent, so their
squares add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from sam_deploy.progress import Progress
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime import OnnxRunner
from sam_deploy.verification.spread import Spread
from sam_deploy.verification.values import GIVEN, SEEN, SHIFT, write_cut, write_seen, write_shifted

_MOST_GROUPS = 32  # a run of the whole network each: those with the largest differences


def group_effects(
    graph: ir.Model,
    artefact: ir.Model,
    exits: Mapping[str, str],
    batches: Sequence[Arrays],
    providers: Sequence[str],
    work: Path,
    progress: Progress,
) -> dict[str, float]:
    """The relative RMS of the outputs that each group alone makes, by the group's name.

    `exits` is the value behind each group, in both the FP32 `graph` and the `artefact`. Of more
    than 32 groups those are looked at whose own values differ most.
    """
    values = list(exits.values())
    for name, write, model in (
        ("exact", write_seen, graph),
        ("cut", write_cut, artefact),
        ("shifted", write_shifted, graph),
    ):
        write(model, values, work / f"{name}.onnx")
    exact, shifted = (OnnxRunner(work / f"{name}.onnx") for name in ("exact", "shifted"))
    cut = OnnxRunner(work / "cut.onnx", providers)
    outputs = [value.name or "" for value in graph.graph.outputs]
    found: dict[str, dict[str, Spread]] = {}
    with progress.stage("groups", len(batches) * min(len(exits), _MOST_GROUPS)) as advance:
        for batch in batches:
            expected = exact.run(batch)
            given = {
                **batch,
                **{name + GIVEN: expected[name + SEEN] for name in values},
            }
            made = cut.run({i.name: given[i.name].astype(i.dtype) for i in cut.inputs})
            differences = {
                group: made[name + SEEN] - expected[name + SEEN] for group, name in exits.items()
            }
            if not found:
                found = _largest(differences, {g: expected[n + SEEN] for g, n in exits.items()})
            still = {name + SHIFT: np.zeros((), np.float32) for name in values}
            for group, spreads in found.items():
                shift = {exits[group] + SHIFT: differences[group]}
                actual = shifted.run({**batch, **still, **shift})
                for name in outputs:
                    if expected[name].dtype.kind == "f":
                        spread = spreads.setdefault(name, Spread())
                        spread.update(actual[name], expected[name])
                advance(1)
    return {
        group: max((spread.relative_rms or 0.0 for spread in spreads.values()), default=0.0)
        for group, spreads in found.items()
    }


def _largest(differences: Arrays, reference: Arrays) -> dict[str, dict[str, Spread]]:
    """The groups whose values differ most, in their order."""

    def own(group: str) -> float:
        return float(np.linalg.norm(differences[group]) / (reference[group].std() + 1e-30))

    chosen = sorted(differences, key=own, reverse=True)[:_MOST_GROUPS]
    return {group: {} for group in differences if group in chosen}
