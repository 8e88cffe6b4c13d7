"""The rewriting pass: the ordered list of rules, and the gate behind each of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sam_deploy.errors import InputError, RewriteError
from sam_deploy.report import Refusal, RewriteReport, RuleReport
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._probe import FLOAT64_TOLERANCE, tensors, worst_difference
from sam_deploy.rewrites._rule import Rule, RuleLog, apply_rule
from sam_deploy.rewrites.rules import (
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
PIPELINE: list[Rule] = [
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
]


def rewrite(
    module: nn.Module, example_inputs: tuple[Any, ...], options: RewriteOptions | None = None
) -> tuple[nn.Module, RewriteReport]:
    """`module` as a static graph, still a plain PyTorch module, and what was done to it.

    `module` is left untouched and is taken in evaluation mode. `example_inputs` are its positional
    arguments; the image size they have is the one the result is for, the batch size stays free.
    Rules are applied in float64; after each that fired, the whole module is compared with the
    untouched one on `example_inputs`.

    Raises:
        RewriteError: a rule changed the function: relative RMS above 1e-10 in float64.
        InputError: `module` does not run on `example_inputs`.
    """
    options = options or RewriteOptions()
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    working = _float64_copy(module)
    inputs = pytree.tree_map_only(Tensor, _to_float64, example_inputs)
    try:
        reference = _outputs(working, inputs)
    except Exception as error:
        raise InputError(
            f"the module does not run in float64 on the example inputs: {type(error).__name__}: "
            f"{error}. Check the inputs' shapes, and that forward creates no tensor of a fixed dtype."
        ) from error
    inference_only.forget_stored(working)

    logs: list[RuleLog] = []
    for rule in PIPELINE:
        working, log = apply_rule(working, rule, options)
        logs.append(log)
        if log.fired:
            _hold(working, inputs, reference, rule, logs)
    return working.to(dtype), _report(logs)


def _hold(
    module: nn.Module,
    inputs: tuple[Any, ...],
    reference: list[Tensor],
    rule: Rule,
    logs: list[RuleLog],
) -> None:
    difference = worst_difference(_outputs(module, inputs), reference)
    if not difference <= FLOAT64_TOLERANCE:
        before = ", ".join(log.rule for log in logs[:-1] if log.fired) or "none"
        raise RewriteError(
            f"rule {rule.name} changed what the module computes: relative RMS {difference:.1e} in "
            f"float64, allowed {FLOAT64_TOLERANCE:.0e}. It fired at {', '.join(logs[-1].fired[:5])}; "
            f"rules before it: {before}. This is a bug in the rule: please report it."
        )


def _float64_copy(module: nn.Module) -> nn.Module:
    # Tensors that a forward stored carry a graph and refuse to be copied: let the copy share them.
    stored = (v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor))
    memo: dict[int, Any] = {id(tensor): tensor.detach() for tensor in stored}
    return copy.deepcopy(module, memo).double().eval()


def _to_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return tensors(module(*inputs))


def _report(logs: list[RuleLog]) -> RewriteReport:
    return RewriteReport(
        rules=[
            RuleReport(
                rule=log.rule,
                fired=len(log.fired),
                refused=[Refusal(module=path, reason=reason) for path, reason in log.refused],
            )
            for log in logs
        ]
    )
