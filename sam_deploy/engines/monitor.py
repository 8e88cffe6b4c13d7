"""How far a build is, and its end before its time: the builder's own progress monitor."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from sam_deploy.tensorrt_family import Member


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The builder's phases: trees of steps, where a phase is part of one step of its parent.

    Their number is not known beforehand. The builder calls from threads of its own, and ends at its
    next step once `cancelled` is set.
    """

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, _Phase] = {}
        self._part = 0.0

    @property
    def part(self) -> float:
        """The part of all steps that is done, 0 to 1; it never falls."""
        with self._lock:
            return self._part

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within `parent` if there is one."""
        with self._lock:
            self._running[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, done: int) -> None:
        """So many steps of the phase are done."""
        with self._lock:
            if phase := self._running.get(name):
                phase.done = done
                self._climb(phase)

    def finish(self, name: str) -> None:
        """The phase is over, whether all of its steps were told or not."""
        with self._lock:
            if phase := self._running.pop(name, None):
                phase.done = phase.steps
                self._climb(phase)

    def _climb(self, phase: _Phase) -> None:
        """Carry the phase's part up to its root, where it is a part of the whole."""
        part = min(phase.done / phase.steps, 1.0)
        while phase.parent is not None and (parent := self._running.get(phase.parent)):
            phase, part = parent, min((parent.done + part) / parent.steps, 1.0)
        if phase.parent is None:
            self._part = max(self._part, part)


def progress_monitor(member: Member, phases: Phases) -> Any:
    """An IProgressMonitor that tells `phases`, and ends the build when they are cancelled."""

    class Monitor(member.trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            member.trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step + 1)
            return not phases.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
