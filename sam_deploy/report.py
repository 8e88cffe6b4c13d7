"""What the rewriting pass reports, as it stands in the manifest."""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A module that a rule looked at and left as it was; `module` is its path, '' for the root."""

    module: str
    reason: str


class RuleReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often a rule fired, and what it refused."""

    rule: str
    fired: int
    refused: list[Refusal] = []


class RewriteReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules of the pipeline in their order."""

    rules: list[RuleReport]

    @property
    def fired(self) -> dict[str, int]:
        """The rules that fired, and how often."""
        return {rule.rule: rule.fired for rule in self.rules if rule.fired}
