"""What is no failure but should be known: told when it is found, and kept."""

from __future__ import annotations

from collections.abc import Sequence

from sam_deploy.progress import Progress


class Notes:
    """Gathers what is noted during one export; `progress` is where it is told."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.given: list[str] = []

    def give(self, found: Sequence[str]) -> None:
        """Tell and keep `found`."""
        for text in found:
            self.given.append(text)
            self.progress.note(text)
