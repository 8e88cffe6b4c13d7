"""An artefact made again of the FP32 graph, with more kept in higher precision, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from sam_deploy.bundle import MODEL
from sam_deploy.errors import CheckFailed
from sam_deploy.exporter.calibration_data import Data
from sam_deploy.exporter.tensor_specs import tensor_specs
from sam_deploy.exporter.typed import Measured, measure, write_typed
from sam_deploy.island_names import island_of
from sam_deploy.manifest import IslandReport
from sam_deploy.parity.of_subject import subject_parity
from sam_deploy.parity_report import ParityReport
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.reference import Subject
from sam_deploy.runtime import OnnxRunner
from sam_deploy.verification.result import Suggestion
from sam_deploy.verification.suggestions import with_lines


@dataclass(frozen=True)
class Tried:
    """A set of groups, and how the artefact with them in higher precision was judged.

    Without `parity` there is none: it could not be made, or did not run; `failures` say why.
    """

    groups: list[str]
    parity: ParityReport | None
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether every tolerance was kept."""
        return not self.failures


class Remake:
    """Makes artefacts of `recipe` and more; measures and calibrates once.

    Raises:
        CheckFailed: not even `recipe` can be made.
        InputError: the samples cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        subject: Subject,
        graph: ir.Model,
        data: Data,
        work: Path,
        progress: Progress,
    ) -> None:
        self._recipe, self._subject, self._data = recipe, subject, data
        self._path, self._progress = work / MODEL, progress
        self._graph = graph.clone()
        listed = [*subject.islands, *(i for i in recipe.islands if i not in subject.islands)]
        self._listed = len(listed)
        self._measured = measure(self._graph, recipe, listed, data, work, progress)

    def judge(self, added: Sequence[Suggestion], named: Sequence[Suggestion] = ()) -> Tried:
        """The artefact with `added`, against the reference. `named` are in the recipe already."""
        groups = [suggestion.group for suggestion in (*named, *added)]
        recipe = self._recipe
        for suggestion in added:
            recipe = with_lines(recipe, suggestion.lines)
        variant = self._graph.clone()
        ends = (variant.graph.inputs, variant.graph.outputs)
        specs = (tensor_specs(ends[0], recipe.io_dtype), tensor_specs(ends[1], recipe.io_dtype))
        samples = self._data.validation
        try:
            with self._progress.stage("fix", samples.count) as advance:
                write_typed(variant, recipe, self._with(recipe), self._path)
                runner = OnnxRunner(self._path)
                parity = subject_parity(
                    MODEL, runner, self._subject, recipe, samples, specs, progress=advance
                )
        except CheckFailed as failure:
            return Tried(groups, None, [str(failure)])
        return Tried(groups, parity, parity.failures)

    def _with(self, recipe: Recipe) -> Measured:
        """What was measured, with the islands and the policy of `recipe`."""
        measured = self._measured
        new = [
            IslandReport(match=i.match, reason=i.reason)
            for i in recipe.islands[len(self._recipe.islands) :]
        ]
        listed, found = measured.islands[: self._listed], measured.islands[self._listed :]
        found = [island for island in found if island_of(island.match, new) is None]
        calibrated = measured.calibrated
        if calibrated is not None and recipe.quantization is not None:
            calibrated = replace(calibrated, policy=recipe.quantization)
        return replace(measured, islands=[*listed, *new, *found], calibrated=calibrated)
