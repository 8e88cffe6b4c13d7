"""One artefact held against the reference, batch by batch, and judged in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity.accuracy import AccuracyCount, Hits
from sam_deploy.parity.figures import OutputFigures, Sums
from sam_deploy.parity.judge import accuracy_figures, output_figures, reasons
from sam_deploy.parity.pairs import paired
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import BatchProfile
from sam_deploy.recipe import Tolerances
from sam_deploy.runner import Array, Arrays, Runner

Reference = Callable[[Mapping[str, Array]], Arrays]
Watch = Callable[[Sequence[int], Arrays, Arrays, Arrays], None]
"""Shown the numbers of a batch's samples, their inputs, and both sides' outputs, all row by row."""


class Comparison:
    """`runner`, which runs `artefact`, against the reference.

    `inputs` and `outputs` are as the manifest declares them; with `classes` the one output holds
    scores of classes. `profile` are the batch sizes that the artefact takes. `watch` is shown every
    sample once.

    `void` says why nothing more is compared: an output missing or too many, a shape or dtype that
    is not declared, NaN or infinity on either side, an artefact that does not run.
    """

    def __init__(
        self,
        artefact: str,
        runner: Runner,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        classes: bool,
        tolerances: Tolerances,
        profile: BatchProfile | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.artefact = artefact
        self.runner = runner
        self.tolerances = tolerances
        self.profile = profile
        self.void: str | None = None
        self._inputs, self._outputs = inputs, outputs
        self._watch = watch
        self._classes = classes and len(outputs) == 1
        self._figures = [OutputFigures(o.name, classes=self._classes) for o in outputs]
        self._accuracy = AccuracyCount()

    @property
    def state(self) -> tuple[list[Sums], list[Hits]]:
        """What was gathered so far, to go on from."""
        return [figure.sums for figure in self._figures], self._accuracy.hits

    def restore(self, sums: Sequence[Sums], hits: Sequence[Hits]) -> None:
        """Go on from the `state` of an earlier run."""
        for figure, kept in zip(self._figures, sums, strict=True):
            figure.sums = kept
        self._accuracy = AccuracyCount(hits)

    def sizes(self, rows: int, batch: int, extra: set[int]) -> list[int]:
        """The batch sizes at which `rows` samples are run: filled up where the size is fixed, and
        at the `extra` sizes where it is free.
        """
        free = isinstance(self._inputs[0].dims[0], str)
        sizes = {rows, *extra} if free else {batch}
        if self.profile is not None:  # fill up, or leave out what it does not take
            least, most = self.profile.min, self.profile.max
            sizes = {max(size, least) for size in sizes if size <= most}
        return sorted(sizes)

    def take(
        self,
        fed: Arrays,
        expected: Arrays,
        numbers: Sequence[int],
        labels: Sequence[int] | None,
        *,
        counted: bool = True,
    ) -> None:
        """Run the artefact on `fed`, and take in its outputs beside the `expected` ones.

        The rows beyond those of `numbers` are repeats and not judged. Samples that are run again,
        in a batch of another size, are not `counted` again.
        """
        size, rows = len(next(iter(fed.values()))), len(numbers)
        try:
            actual = self._run(fed)
            pairs = paired(self._outputs, actual, expected, size)
        except CheckFailed as failure:
            self.void = str(failure)
            return
        for figure, (a, r) in zip(self._figures, pairs, strict=True):
            judged = slice(rows) if a.ndim and len(a) == size else ...
            figure.update(a[judged], r[judged], counted=counted)
        if not counted:
            return
        if self._classes and labels is not None:
            a, r = pairs[0]
            self._accuracy.update(a[:rows], r[:rows], labels)
        if self._watch is not None:
            rowwise = [
                (output.name, a[:rows], r[:rows])
                for output, (a, r) in zip(self._outputs, pairs, strict=True)
                if a.ndim and len(a) == size
            ]
            self._watch(
                numbers,
                {name: array[:rows] for name, array in fed.items()},
                {name: a for name, a, _ in rowwise},
                {name: r for name, _, r in rowwise},
            )

    def report(self, **described: object) -> ParityReport:
        """The report with every tolerance that was broken as a reason; `passed` is the verdict.

        `described` are the report's fields on the samples.

        Raises:
            CheckFailed: the comparison is void.
        """
        void = self.void
        if void is None and not any(figure.sums.elements for figure in self._figures):
            void = "no samples, so nothing was compared"
        if void is None and not any(figure.tells for figure in self._figures):
            void = "the reference's outputs are constant, so right and wrong would look the same"
        try:
            results = [figure.result() for figure in self._figures] if void is None else []
        except ValueError as error:
            void = str(error)
        if void is not None:
            raise CheckFailed(f"parity of {self.artefact}: {void}")
        accuracy = None
        if self._classes:
            accuracy = self._accuracy.result(int(self._outputs[0].dims[1]))
        limits = self.tolerances
        return ParityReport(
            artefact=self.artefact,
            backend=self.runner.backend,
            tolerances=limits,
            outputs=results,
            accuracy=accuracy,
            failures=[
                *(
                    r
                    for result in results
                    for r in reasons(output_figures(result, self.tolerances))
                ),
                *(reasons(accuracy_figures(accuracy, self.tolerances)) if accuracy else []),
            ],
            **described,  # type: ignore[arg-type]
        )

    def _run(self, fed: Arrays) -> Arrays:
        unknown = [spec.name for spec in self._inputs if spec.name not in fed]
        if unknown:
            raise CheckFailed(f"input {unknown[0]}: the reference does not have it")
        try:
            return self.runner.run({i.name: fed[i.name].astype(i.dtype) for i in self._inputs})
        except Exception as error:  # a backend may raise anything
            raise CheckFailed(f"it does not run: {error}") from None
