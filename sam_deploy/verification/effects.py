"""What each group adds to the error of the outputs: its own part, and nothing that came before it.

The artefact is cut where its groups end, and every part is run on the exact values: what differs
behind a part was made in it. That difference is then put into the FP32 graph at this one place,
and what arrives at the outputs is the group's own. Such errors are independent, so their squares
add up to that of the whole artefact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from sam_deploy.progress import Progress
from sam_deploy.runner import Arrays
from sam_deploy.runtime import OnnxRunner
from sam_deploy.runtime.onnx_backends import AnyOnnxRunner, start_onnx
from sam_deploy.verification.spread import Spread
from sam_deploy.verification.values import GIVEN, SEEN, SHIFT, write_cut, write_seen, write_shifted

_MOST_GROUPS = 256
# Each group on each batch takes a run of the whole network: so many numbers in all runs together,
# as they are behind the groups. It is two samples of smt_t at 224, one of smt_l at 384.
_NUMBERS = 10**9


class Effect(NamedTuple):
    """The relative RMS that a group makes: behind itself on exact values, and of it at the outputs.

    `at_outputs` is 0 where it was not looked at.
    """

    own: float
    at_outputs: float


def group_effects(
    graph: ir.Model,
    artefact: ir.Model,
    exits: Mapping[str, str],
    batches: Sequence[Arrays],
    provider: str,
    work: Path,
    progress: Progress,
) -> dict[str, Effect]:
    """What each group alone makes, by the group's name.

    `exits` is the value behind each group, in the FP32 `graph` as in `artefact`. What arrives at
    the outputs is looked at where there is a difference; of more than 256 groups, of those that
    differ most.
    """
    values = list(exits.values())
    write_seen(graph, values, work / "exact.onnx")
    write_cut(artefact, values, work / "cut.onnx")
    write_shifted(graph, values, work / "shifted.onnx")
    exact, shifted = OnnxRunner(work / "exact.onnx"), OnnxRunner(work / "shifted.onnx")
    cut = start_onnx(work / "cut.onnx", provider)
    still = {name + SHIFT: np.zeros((), np.float32) for name in values}
    outputs = [output.name for output in exact.outputs if output.dtype.startswith("float")]
    outputs = [name for name in outputs if not name.endswith(SEEN)]
    first = exact.run(batches[0])
    numbers = sum(first[name + SEEN].size for name in values)
    del first
    taken = batches[: max(_NUMBERS // max(numbers * len(exits), 1), 1)]
    own = {group: Spread() for group in exits}
    arrived: dict[str, dict[str, Spread]] = {}
    with progress.stage("groups", len(taken) * len(exits)) as advance:
        for batch in taken:
            seen = exact.run(batch)
            made = _made(cut, {**batch, **{name + GIVEN: seen[name + SEEN] for name in values}})
            for group, name in exits.items():
                own[group].update(made[name + SEEN], seen[name + SEEN])
            if not arrived:
                arrived = {group: {o: Spread() for o in outputs} for group in _largest(own)}
            expected = shifted.run({**batch, **still})
            for group, spreads in arrived.items():
                name = exits[group]
                with np.errstate(invalid="ignore"):  # infinite on both sides
                    shift = made[name + SEEN] - seen[name + SEEN]
                actual = shifted.run({**batch, **still, name + SHIFT: shift})
                for output, spread in spreads.items():
                    spread.update(actual[output], expected[output])
                advance(1)
            advance(len(exits) - len(arrived))
    return {
        group: Effect(_worst([spread]), _worst(arrived.get(group, {}).values()))
        for group, spread in own.items()
    }


def _made(cut: AnyOnnxRunner, given: Arrays) -> Arrays:
    return cut.run({spec.name: given[spec.name].astype(spec.dtype) for spec in cut.inputs})


def _largest(own: Mapping[str, Spread]) -> list[str]:
    """The groups that make a difference, those with the largest where they are many; in order."""
    differing = [group for group, spread in own.items() if _worst([spread])]
    largest = sorted(differing, key=lambda group: -_worst([own[group]]))[:_MOST_GROUPS]
    return [group for group in differing if group in largest]


def _worst(spreads: Iterable[Spread]) -> float:
    return max((spread.relative_rms or 0.0 for spread in spreads), default=0.0)
