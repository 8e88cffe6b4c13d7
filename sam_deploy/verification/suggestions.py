"""Which groups to keep in higher precision, and the lines of a recipe that do so."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence

import msgspec
import onnx_ir as ir

from sam_deploy.island_names import island_of
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import Island, Recipe
from sam_deploy.verification.effects import Effect
from sam_deploy.verification.result import LayerError, Suggestion

_WORTH = 1e-3  # of the squared error: what is left out in the end
_LEAST = 2.0**-12  # the RMS of rounding to FP16: what arrives has that error at least


def suggestions_for(
    effects: Mapping[str, Effect],
    exits: Mapping[str, str],
    layers: Sequence[LayerError],
    graph: ir.Model,
    quantized: Collection[str],
    recipe: Recipe,
) -> list[Suggestion]:
    """The groups that most of the error comes from, the largest part first.

    `exits` is the value behind each group in the FP32 `graph`. In FP32 there is nothing higher to
    keep it in.
    """
    if recipe.precision == "fp32":
        return []
    before = _before(graph, exits)
    error = {layer.group: layer.relative_rms for layer in layers}  # behind the last of each group
    squares = {group: effect.at_outputs**2 for group, effect in effects.items()}
    total = sum(squares.values())
    found: list[Suggestion] = []
    rest = total
    for group, square in sorted(squares.items(), key=lambda item: -item[1]):
        if not rest > _WORTH * total:
            break
        rest -= square
        part = 100 * square / total
        reason = f"{part:.2g} % of the squared error of the outputs comes from it"
        lines = _lines(group, reason, exits, graph, quantized, recipe)
        if lines is not None:
            arrived = max((error[other] for other in before[group]), default=0.0)
            found.append(
                Suggestion(
                    group=group,
                    growth=error[group] / max(arrived, _LEAST),
                    relative_rms=error[group],
                    lines=lines,
                )
            )
    return found


def with_lines(recipe: Recipe, lines: str) -> Recipe:
    """`recipe` with the `lines` of a suggestion."""
    data = tomllib.loads(lines)
    islands = [msgspec.convert(island, Island) for island in data.get("islands", [])]
    policy, keep = recipe.quantization, data.get("quantization", {}).get("keep", [])
    if keep:
        policy = policy or Quantization()
        policy = msgspec.structs.replace(
            policy,
            keep=[*policy.keep, *keep],
            quantize=[path for path in policy.quantize if path not in keep],
        )
    return msgspec.structs.replace(recipe, islands=[*recipe.islands, *islands], quantization=policy)


def _lines(
    group: str,
    reason: str,
    exits: Mapping[str, str],
    graph: ir.Model,
    quantized: Collection[str],
    recipe: Recipe,
) -> str | None:
    """TOML, or None where the graph has no node of the group's, or all are in FP32 already.

    Nor is there any for what is between groups, such as the sums of a block: its error is the
    rounding of what it hands on, which would be the same behind an island.
    """
    if any(other.startswith(f"{group}.") for other in exits):
        return None
    own = [node.name or "" for node in graph.graph if _is_in(node, group)]
    if group in quantized:
        return f"[quantization]\nkeep = [{json.dumps(group)}]\n"
    if all(island_of(name, recipe.islands) for name in own):
        return None
    return f"[[islands]]\nmatch = {json.dumps(group)}\nreason = {json.dumps(reason)}\n"


def is_quantized(group: str, artefact: ir.Model) -> bool:
    """Whether a layer of the group is INT8 or FP8 in the artefact."""
    return any(n.op_type == "DequantizeLinear" and _is_in(n, group) for n in artefact.graph)


def _is_in(node: ir.Node, group: str) -> bool:
    path = (node.name or "").rpartition("/")[0]
    return path == group or path.startswith(f"{group}.")


def _before(graph: ir.Model, exits: Mapping[str, str]) -> dict[str, set[str]]:
    """The groups whose values a group's part of the graph begins with."""
    groups = {value: group for group, value in exits.items()}
    values = {value.name: value for node in graph.graph for value in node.outputs}
    found: dict[str, set[str]] = {}
    for group, name in exits.items():
        waiting, known = [values[name].producer()], set()
        found[group] = set()
        while waiting:
            node = waiting.pop()
            if node is None or node in known:
                continue
            known.add(node)
            for value in node.inputs:
                if value is not None and value.name in groups:
                    found[group].add(groups[value.name])
                elif value is not None:
                    waiting.append(value.producer())
    return found
