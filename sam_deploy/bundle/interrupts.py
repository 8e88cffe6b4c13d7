"""Ctrl-C and SIGTERM kept waiting while folders are made and removed: half of that is litter."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Hold:
    """While `held` is true an interrupt is only noted; else it goes where it went before."""

    def __init__(self) -> None:
        self.held = False
        self._noted: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def install(self) -> None:
        """Come before the handlers that are there; one of the system's own is left alone."""
        if threading.current_thread() is not threading.main_thread():
            return  # interrupts come to the main thread only
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._came)

    def let_through(self) -> None:
        """From here on interrupts come through, and first the one that was noted."""
        self.held = False
        if self._noted is not None:
            number, self._noted = self._noted, None
            signal.raise_signal(number)

    def uninstall(self) -> None:
        """Put the handlers back."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.held:
            self._noted = number
        else:
            self._before[number](number, frame)


@contextmanager
def interrupts_held() -> Iterator[Hold]:
    """Hold interrupts back within; the one that came is raised afterwards.

    To let them through for a while call `let_through`, and set `held` again first thing in a
    `finally`: no interrupt is handled between the two.
    """
    hold = Hold()
    try:
        hold.install()
        hold.held = True
        yield hold
    finally:
        try:
            hold.let_through()
        finally:
            hold.uninstall()
