"""A subject as an FP32 graph: rewritten, lowered and held against the spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx_ir as ir

from sam_deploy.lowering import check_graph, check_traps, onnx_from_module
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.report import RewriteReport
from sam_deploy.rewrites import Rule, rewrite, static_paths


class Lowered(NamedTuple):
    """The FP32 graph, what was rewritten on the way, and what of the network should be known."""

    graph: ir.Model
    rewrites: RewriteReport
    traps: list[str]


def lowered(
    subject: Subject,
    recipe: Recipe,
    progress: Progress,
    pipeline: Sequence[Rule[Any]] | None = None,
) -> Lowered:
    """The graph that every precision of `recipe` is made of; the same each time.

    Raises:
        CheckFailed: a rule changed the function, or the graph does not keep to the spec.
        InputError: the network cannot become a static graph.
    """
    with progress.stage("rewrite"):
        module, rewrites = rewrite(
            subject.module, subject.example_inputs, recipe.rewrites, pipeline
        )
    static, traps = [""], []
    if subject.own:
        static = static_paths(module)
        with progress.stage("preflight"):
            traps = list(check_traps(module, subject.example_inputs, batch=recipe.batch))
    with progress.stage("lower"):
        graph = onnx_from_module(
            module,
            subject.example_inputs,
            input_names=subject.input_names,
            output_names=subject.output_names,
            batch=recipe.batch,
        )
        check_graph(graph, static)
    return Lowered(graph, rewrites, traps)
