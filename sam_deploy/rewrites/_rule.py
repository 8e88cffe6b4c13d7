"""What a rule is, and the walk that applies one to a module tree."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import nn

from sam_deploy.rewrite_options import RewriteOptions

Kind = TypeVar("Kind", bound=nn.Module)


class Refused(Exception):
    """A module that has a rule's pattern but must be left alone; the message is the reason."""


@dataclass(frozen=True)
class Rule(Generic[Kind]):
    """Pattern, check and rewrite of one identity.

    `pattern` says cheaply whether the rule wants to look at a module of class `kind`. `rewrite`
    checks it, raises `Refused` with the reason if it must be left alone, and returns what to put
    in its place (which may be the module itself, changed). `identity` is the equation that makes
    it legal.
    """

    name: str
    identity: str
    kind: type[Kind]
    pattern: Callable[[Kind, RewriteOptions], bool]
    rewrite: Callable[[Kind, RewriteOptions], nn.Module]


@dataclass
class RuleLog:
    """Where one rule fired and what it refused, by module path ('' is the module itself)."""

    rule: str
    fired: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def apply_rule(
    root: nn.Module, rule: Rule[Any], options: RewriteOptions, uncalled: Container[nn.Module] = ()
) -> tuple[nn.Module, RuleLog]:
    """Apply `rule` wherever its pattern stands in `root`, outermost first.

    `uncalled` are modules whose forward nothing calls, so that nothing is known of it: the
    network around them uses their parts, or they are not in use. They are refused.
    A module that was rewritten is not descended into; one that stands in several places is
    rewritten once and put in all of them.
    """
    log = RuleLog(rule.name)
    done: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module, path: str) -> nn.Module:
        if module in done:
            return done[module]
        replacement = module
        rewritten = False
        if isinstance(module, rule.kind) and rule.pattern(module, options):
            try:
                if module in uncalled:
                    raise Refused("its forward is not called on the example inputs")
                replacement = rule.rewrite(module, options)
                rewritten = True
                log.fired.append(path)
            except Refused as refusal:
                log.refused.append((path, str(refusal)))
        done[module] = replacement
        if not rewritten:
            for name, child in list(module._modules.items()):
                if child is not None:
                    module._modules[name] = visit(child, f"{path}.{name}" if path else name)
        return replacement

    return visit(root, ""), log
