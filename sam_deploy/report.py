"""What the rewriting pass reports, as it stands in the manifest."""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A module that a rule looked at and left as it was; `module` is its path, '' for the root."""

    module: str
    reason: str


class RuleReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often a rule fired, what it refused, and how many operators the module ran after it."""

    rule: str
    fired: int
    operators_after: int
    refused: list[Refusal] = []


class RewriteReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules of the pipeline in their order.

    Operators are those that PyTorch runs in one forward pass, views included.
    """

    operators_before: int
    rules: list[RuleReport]

    @property
    def operators_after(self) -> int:
        """The operators of the rewritten module."""
        return self.rules[-1].operators_after if self.rules else self.operators_before

    @property
    def fired(self) -> dict[str, int]:
        """The rules that fired, and how often."""
        return {rule.rule: rule.fired for rule in self.rules if rule.fired}
