"""Rounds in turn: each contestant runs a little in every round, so that what slows the machine for
a while slows them all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from sam_deploy.bench.contestant import Contestant, ContestantProcess, Disagrees, Failed, Turn
from sam_deploy.bench.result import BatchTiming, Entry, LeftOut
from sam_deploy.example import Example, distance
from sam_deploy.progress import Progress

_REST_S = 0.01  # the last one's threads have stopped waiting for more by then
_TURN_MS = 60.0  # a turn is about that long, of one run or of many
_MOST_RUNS = 20


def race(
    contestants: Sequence[Contestant],
    examples: Mapping[int, Example],
    rounds: int,
    progress: Progress,
) -> tuple[list[Entry], list[LeftOut]]:
    """Time every contestant on the inputs in `examples`, by batch, against the outputs there.

    Those that fail, or compute something else, are left out with the reason.
    """
    field = _Field()
    try:
        with progress.stage("load", len(contestants)) as advance:
            for contestant in contestants:  # one after the other: the cores are its own meanwhile
                one = _Runner(contestant, examples)
                field.running.append(one)
                field.attempt(one, _Runner.load)
                advance(1)
        turns = [(batch, one) for batch in examples for one in field.running]
        with progress.stage("agree", len(turns)) as advance:
            for batch, one in turns:
                field.attempt(one, partial(_Runner.agree, batch=batch))
                advance(1)
        with progress.stage("time", rounds * len(turns)) as advance:
            for batch, one in turns * rounds:
                field.attempt(one, partial(_Runner.time, batch=batch))
                advance(1)
    finally:
        peaks = [one.stop() for one in field.running]
    return [one.entry(peak) for one, peak in zip(field.running, peaks, strict=True)], field.left_out


class _Field:
    """Who still runs, and who does not any more."""

    def __init__(self) -> None:
        self.running: list[_Runner] = []
        self.left_out: list[LeftOut] = []

    def attempt(self, one: _Runner, step: Callable[[_Runner], None]) -> None:
        """Have `one` do a step, if it still runs; one that fails at it is left out."""
        if one not in self.running:
            return
        try:
            step(one)
        except Failed as failure:
            self.running.remove(one)
            one.stop()
            self.left_out.append(
                LeftOut(
                    name=one.contestant.name,
                    side=one.contestant.side,
                    reason=str(failure),
                    disagrees=isinstance(failure, Disagrees),
                )
            )


class _Runner:
    """A contestant as it stands in the race."""

    def __init__(self, contestant: Contestant, examples: Mapping[int, Example]) -> None:
        self.contestant = contestant
        self._examples = examples
        inputs = {batch: example.inputs for batch, example in examples.items()}
        self._process = ContestantProcess(contestant, inputs)
        self._load_s = 0.0
        self._runs: dict[int, int] = {}
        self._rounds_ms: dict[int, list[list[float]]] = {}
        self._errors: dict[int, float] = {}

    def load(self) -> None:
        self._load_s = self._process.loaded_s()

    def agree(self, batch: int) -> None:
        turn = self._process.turn(batch, 1)
        self._hold(turn, batch)
        self._runs[batch] = max(1, min(_MOST_RUNS, round(_TURN_MS / max(turn.times_ms[0], 1e-3))))
        self._rounds_ms[batch] = []

    def time(self, batch: int) -> None:
        time.sleep(_REST_S)
        turn = self._process.turn(batch, self._runs[batch])
        self._hold(turn, batch)
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

    def _hold(self, turn: Turn, batch: int) -> None:
        example = self._examples[batch]
        problem = example.problem(turn.outputs, self.contestant.tolerances, slack=1.0)
        if problem is not None:
            raise Disagrees(f"at batch {batch} {problem}")
        errors = [distance(turn.outputs[name], y) for name, y in example.outputs.items()]
        self._errors[batch] = max(self._errors.get(batch, 0.0), *errors)

    def _timing(self, batch: int) -> BatchTiming:
        rounds = self._rounds_ms[batch]
        medians = [statistics.median(times) for times in rounds]
        median = statistics.median(medians)
        low, _, high = statistics.quantiles(medians, n=4) if len(medians) > 1 else (0.0, 0.0, 0.0)
        return BatchTiming(
            batch=batch,
            median_ms=round(median, 4),
            spread_ms=round(high - low, 4),
            p95_ms=round(float(np.percentile(np.concatenate(rounds), 95)), 4),
            samples_per_s=round(1e3 * batch / median, 2),
            relative_rms=float(f"{self._errors[batch]:.3g}"),
        )
