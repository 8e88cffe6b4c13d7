"""What a search over the rewrites' equal forms found, as the manifest keeps it."""

from __future__ import annotations

import msgspec

from sam_deploy.rewrite_options import RewriteOptions


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One form on `target` against the best before it there: `ratio` above 1 is faster, None where
    it has no time, and then `refused` says why.
    """

    rewrites: RewriteOptions
    ratio: float | None
    refused: str | None = None
    target: str = ""
    """Empty in manifests from before it was kept: then it is the report's."""


class TuningReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the forms were chosen: for `target`, in the precision asked for, at these batch sizes.

    `target` is the fastest of the runtimes on which forms were tried. `ratio` is how many times as
    fast `chosen` is there as `start`, the recipe's own forms, in a last comparison of the two; 1
    where none was faster. `over_untouched` is the same against the export without any rewriting or
    quantization, None where there was none or no time for it. `complete` is False where the time
    was up first, and `remembered` True where an earlier search with the same graph, runtimes and
    machine is repeated.
    """

    target: str
    batches: list[int]
    start: RewriteOptions
    chosen: RewriteOptions
    ratio: float
    over_untouched: float | None = None
    trials: list[Trial]
    complete: bool
    remembered: bool = False

    @property
    def text(self) -> str:
        """In a line."""
        found = f"{self.ratio:.2f}x as fast as the recipe's forms"
        if self.chosen == self.start:
            found = "the recipe's forms, none was faster"
        if self.over_untouched is not None:
            found += f", {self.over_untouched:.2f}x as fast as the untouched export"
        tried = "remembered" if self.remembered else f"{len(self.trials)} tried"
        cut = "" if self.complete else ", the time was up"
        return f"{self.chosen.text}: {found}; on {self.target} ({tried}{cut})"
