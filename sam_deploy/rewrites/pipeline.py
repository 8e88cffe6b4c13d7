"""The rewriting pass: the ordered list of rules, and the gate behind each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sam_deploy.errors import InputError, RewriteError
from sam_deploy.report import Refusal, RewriteReport, RuleReport
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._probe import FLOAT64_TOLERANCE, worst_difference
from sam_deploy.rewrites._rule import Rule, RuleLog, apply_rule
from sam_deploy.rewrites._run import Run, cast, float64_copy, run, tensors
from sam_deploy.rewrites.rules import (
    anchor_images,
    dense_aggregation,
    fold_attention_scale,
    fold_batch_norm,
    fold_head_shuffle,
    fold_layer_scale,
    fold_mlp_residual,
    inference_only,
    join_projections,
    linear_form,
    merge_heads,
    static_shapes,
)

# Order matters: folds into linear maps come before those are joined or change their form.
PIPELINE: list[Rule[Any]] = [
    inference_only.RULE,
    static_shapes.RULE,
    fold_batch_norm.RULE,
    fold_layer_scale.RULE,
    fold_attention_scale.RULE,
    fold_mlp_residual.RULE,
    merge_heads.RULE,
    dense_aggregation.RULE,
    fold_head_shuffle.RULE,
    join_projections.RULE,
    linear_form.RULE,
    anchor_images.RULE,
]


def rewrite(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    options: RewriteOptions | None = None,
    pipeline: Sequence[Rule[Any]] | None = None,
) -> tuple[nn.Module, RewriteReport]:
    """`module` as a static graph, still a plain PyTorch module, and what was done to it.

    `module` is left untouched and is taken in evaluation mode. `example_inputs` are its positional
    arguments; the image size they have is the one the result is for, the batch size stays free.
    Rules are applied in float64; after each that fired, the whole module is compared with the
    untouched one on `example_inputs`. `pipeline` is `PIPELINE` by default; rules of your own go
    where they belong in a copy of it.

    Raises:
        RewriteError: a rule changed the function: relative RMS above 1e-10 in float64.
        InputError: `module` does not run on `example_inputs`, these or its outputs are constant, or
            outputs are NaN or infinite.
    """
    options = options or RewriteOptions()
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    inputs = pytree.tree_map_only(Tensor, _to_float64, example_inputs)
    try:
        working = float64_copy(module)
        reference = run(working, inputs)
    except Exception as error:
        raise InputError(
            f"the module does not run in float64 on the example inputs: {type(error).__name__}: "
            f"{error}. Check the inputs' shapes, and that forward makes no tensor of a fixed dtype."
        ) from error
    _check_tells(tensors(inputs), tensors(reference.outputs))
    uncalled = {m for path, m in working.named_modules() if path not in reference.called}

    before = count = reference.operators
    logs: list[RuleLog] = []
    counts: list[int] = []
    for rule in PIPELINE if pipeline is None else pipeline:
        working, log = apply_rule(working, rule, options, uncalled)
        logs.append(log)
        if log.fired:
            count = _held(working, inputs, reference, logs)
        counts.append(count)
    return cast(working.to(first.device), first.dtype).eval(), _report(before, logs, counts)


def _check_tells(inputs: list[Tensor], outputs: list[Tensor]) -> None:
    """Refuse inputs and outputs on which wrong and right could look the same."""
    floats = [x for x in inputs if x.is_floating_point()]
    if (floats and all(map(_constant, floats))) or all(map(_constant, outputs)):
        raise InputError(
            "the example inputs or the module's outputs on them are constant (or there are no "
            "outputs), so comparing would prove nothing. Give random example inputs."
        )
    if not all(output.isfinite().all() for output in outputs):
        raise InputError(
            "the module's outputs on the example inputs hold NaN or infinity, which cannot be "
            "compared. Check its weights, or give example inputs on which it is finite."
        )


def _constant(x: Tensor) -> bool:
    return x.numel() < 2 or bool((x == x.flatten()[0]).all())


def _held(module: nn.Module, inputs: tuple[Any, ...], reference: Run, logs: list[RuleLog]) -> int:
    """Hold the module against the untouched one; the operators that it ran."""
    *earlier, last = logs
    before = ", ".join(log.rule for log in earlier if log.fired) or "none"
    where = f"It fired at {', '.join(last.fired[:5])}; rules before it: {before}."
    try:
        result = run(module, inputs)
    except Exception as error:
        raise RewriteError(
            f"after rule {last.rule} the module fails: {type(error).__name__}: {error}. {where} "
            "Does the network reach into one of these for more than its output?"
        ) from error
    difference = worst_difference(tensors(result.outputs), tensors(reference.outputs))
    if not difference <= FLOAT64_TOLERANCE:
        raise RewriteError(
            f"rule {last.rule} changed what the module computes: relative RMS {difference:.1e} in "
            f"float64, allowed {FLOAT64_TOLERANCE:.0e}. {where} This is a bug in the rule (unless "
            "the module is random): please report it."
        )
    return result.operators


def _to_float64(tensor: Tensor) -> Tensor:
    return tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()


def _report(before: int, logs: list[RuleLog], counts: list[int]) -> RewriteReport:
    return RewriteReport(
        operators_before=before,
        rules=[
            RuleReport(
                rule=log.rule,
                fired=len(log.fired),
                operators_after=count,
                refused=[Refusal(module=path, reason=reason) for path, reason in log.refused],
            )
            for log, count in zip(logs, counts, strict=True)
        ],
    )
