"""Rounds in turn: each contestant runs a little in every round, so that what slows the machine for
a while slows them all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sam_deploy.agreement import relative_rms
from sam_deploy.bench.contestant import Contestant, ContestantProcess, Disagrees, Failed, Turn
from sam_deploy.bench.result import BatchTiming, Entry, LeftOut
from sam_deploy.progress import Progress
from sam_deploy.runner import Arrays

_REST_S = 0.01  # the last one's threads have stopped waiting for more by then
_TURN_MS = 60.0  # a turn is about that long, of one run or of many
_MOST_RUNS = 20


def race(
    contestants: Sequence[Contestant],
    inputs: Mapping[int, Arrays],
    references: Mapping[int, Arrays],
    rounds: int,
    progress: Progress,
) -> tuple[list[Entry], list[LeftOut]]:
    """Time every contestant on `inputs`, by batch, against the outputs in `references`.

    Those that fail, or compute something else, are left out with the reason.
    """
    left_out: list[LeftOut] = []
    running: list[_Runner] = []

    def each(steps: Sequence[_Runner], step: Callable[[_Runner], None]) -> None:
        for one in steps:
            try:
                step(one)
            except Failed as failure:
                running.remove(one)
                one.stop()
                left_out.append(
                    LeftOut(
                        name=one.contestant.name,
                        side=one.contestant.side,
                        reason=str(failure),
                        disagrees=isinstance(failure, Disagrees),
                    )
                )
            advance(1)

    try:
        with progress.stage("load", len(contestants)) as advance:
            for contestant in contestants:  # one after the other: the cores are its own meanwhile
                running.append(_Runner(contestant, inputs))
                each(running[-1:], _Runner.load)
        with progress.stage("agree", len(inputs) * len(running)) as advance:
            for batch in inputs:
                each(
                    list(running), partial(_Runner.agree, batch=batch, reference=references[batch])
                )
        with progress.stage("time", rounds * len(inputs) * len(running)) as advance:
            for _ in range(rounds):
                for batch in inputs:
                    each(
                        list(running),
                        partial(_Runner.time, batch=batch, reference=references[batch]),
                    )
    finally:
        peaks = [one.stop() for one in running]
    return [one.entry(peak) for one, peak in zip(running, peaks, strict=True)], left_out


class _Runner:
    """A contestant as it stands in the race."""

    def __init__(self, contestant: Contestant, inputs: Mapping[int, Arrays]) -> None:
        self.contestant = contestant
        self._process = ContestantProcess(contestant, inputs)
        self._load_s = 0.0
        self._runs: dict[int, int] = {}
        self._rounds_ms: dict[int, list[list[float]]] = {}
        self._errors: dict[int, float] = {}

    def load(self) -> None:
        self._load_s = self._process.loaded_s()

    def agree(self, batch: int, reference: Arrays) -> None:
        turn = self._process.turn(batch, 1)
        self._hold(turn, batch, reference)
        self._runs[batch] = max(1, min(_MOST_RUNS, round(_TURN_MS / max(turn.times_ms[0], 1e-3))))
        self._rounds_ms[batch] = []

    def time(self, batch: int, reference: Arrays) -> None:
        time.sleep(_REST_S)
        turn = self._process.turn(batch, self._runs[batch])
        self._hold(turn, batch, reference)
        self._rounds_ms[batch].append(turn.times_ms)

    def stop(self) -> int:
        return self._process.stop()

    def entry(self, peak_bytes: int) -> Entry:
        return Entry(
            name=self.contestant.name,
            side=self.contestant.side,
            precision=self.contestant.precision,
            load_s=round(self._load_s, 3),
            peak_bytes=peak_bytes,
            timings=[self._timing(batch) for batch in self._rounds_ms],
        )

    def _hold(self, turn: Turn, batch: int, reference: Arrays) -> None:
        if turn.outputs.keys() != reference.keys():
            names, wanted = ", ".join(turn.outputs), ", ".join(reference)
            raise Disagrees(f"its outputs are {names}, PyTorch's {wanted}")
        for name, expected in reference.items():
            found = turn.outputs[name]
            if found.shape != expected.shape:
                raise Disagrees(f"{name} has shape {found.shape}, PyTorch's {expected.shape}")
            error, limit = relative_rms(found, expected), self.contestant.relative_rms
            if not error <= limit:
                raise Disagrees(
                    f"{name} is another than PyTorch's at batch {batch}: relative RMS {error:.1e}, "
                    f"at most {limit:g} counts as {self.contestant.precision}"
                )
            self._errors[batch] = max(error, self._errors.get(batch, 0.0))

    def _timing(self, batch: int) -> BatchTiming:
        rounds = self._rounds_ms[batch]
        medians = [statistics.median(times) for times in rounds]
        median = statistics.median(medians)
        low, _, high = statistics.quantiles(medians, n=4) if len(medians) > 1 else (0.0, 0.0, 0.0)
        return BatchTiming(
            batch=batch,
            median_ms=round(median, 4),
            spread_ms=round(high - low, 4),
            samples_per_s=round(1e3 * batch / median, 2),
            relative_rms=float(f"{self._errors[batch]:.3g}"),
        )
