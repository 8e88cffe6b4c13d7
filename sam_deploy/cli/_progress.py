"""Stages and elapsed time on stderr: a moving bar on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar

from sam_deploy.progress import Advance, Progress


class StderrProgress(Progress):
    """Shows each stage while it runs and how long it took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """A stage of the work; yields what to call with each number of `total` steps done."""
        start = time.monotonic()
        terminal = sys.stderr.isatty()
        if terminal:
            with self._bar(counted=total is not None) as bar:
                task = bar.add_task(name, total=total)
                yield lambda steps: bar.advance(task, steps)
        else:
            _say(f"{name:10} ")  # now, so that a log shows what is being waited for
            try:
                yield lambda steps: None
            except BaseException:
                _say("\n")
                raise
        now = time.monotonic()
        times = f"{now - start:6.1f} s   {now - self._start:6.1f} s in all\n"
        _say(f"{name:10} {times}" if terminal else times)

    def note(self, text: str) -> None:
        """A line on stderr."""
        _say(f"note: {text}\n")

    def _bar(self, *, counted: bool) -> Bar:
        columns = [SpinnerColumn(), TextColumn("{task.description:10}")]
        if counted:
            columns += [BarColumn(), MofNCompleteColumn()]
        return Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)


def _say(text: str) -> None:
    with suppress(OSError):  # nobody listens: no reason to give up the work
        sys.stderr.write(text)
        sys.stderr.flush()
