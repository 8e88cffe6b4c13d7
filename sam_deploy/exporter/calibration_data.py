"""Which samples find the ranges of INT8 and FP8: never those that parity is then judged on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sam_deploy.errors import InputError
from sam_deploy.exporter.request import Request
from sam_deploy.exporter.spooled import spooled_samples
from sam_deploy.images import find_images
from sam_deploy.parity import (
    Samples,
    image_samples,
    normal_samples,
    sample_hashes,
    synthetic_samples,
)
from sam_deploy.parity.npz import npz_samples
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.progress import Progress
from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import QUANTIZED, Recipe
from sam_deploy.reference.subject import Subject

SYNTHETIC_SAMPLES = 128
FEW_SAMPLES = 100
_SEED = 1  # other built-in images than those that parity takes
_ONE_IN = 4  # of one folder for both, every fourth image is held back for parity
T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """What an export measures on. `calibration` is None where nothing is quantized; `divided` is
    whether the two are parts of one set, and so have nothing in common.
    """

    validation: Samples
    calibration: Samples | None = None
    divided: bool = False

    def check_disjoint(self, progress: Progress) -> None:
        """Refuse a sample that is in both: parity would be judged on what it was tuned on.

        Raises:
            InputError: saying how many; or none of the images could be read.
        """
        if self.calibration is None or self.divided:
            return
        with progress.stage("samples"):
            both = set(sample_hashes(self.calibration)) & set(sample_hashes(self.validation))
        if both:
            raise InputError(
                f"{len(both)} of the calibration samples are among those that parity is measured "
                "on (the same pixels after preprocessing). Give other images for one of the two, "
                "or only --data: it is then divided."
            )

    def notes(self) -> list[str]:
        """What whoever quantizes on this should know."""
        if self.calibration is None:
            return []
        notes = [f"for calibration {note}" for note in self.calibration.left_out()]
        usable = self.calibration.count - len(self.calibration.unreadable)
        if usable < FEW_SAMPLES:
            notes.append(
                f"calibrated on {usable} samples; with fewer than {FEW_SAMPLES} the ranges are "
                "guesses, 500 or more are usual."
            )
        if self.calibration.kind in (SYNTHETIC, "seeded normal"):
            notes.append(
                "calibrated on made-up data, as asked: the ranges are not those of your images."
            )
        return notes


def data_for(
    subject: Subject,
    recipe: Recipe,
    request: Request,
    folder: Path,
) -> Data:
    """The samples for parity and, where the recipe quantizes, those for calibration.

    The request's `data` is for parity; calibration takes its batches (kept in `folder` meanwhile),
    else what the recipe names, else three in four of `data`.

    Raises:
        InputError: nothing to calibrate on, or data that does not fit.
    """
    data, given = request.data, request.calibration
    if recipe.precision not in QUANTIZED:
        return Data(samples_for(subject, data))
    if given is None and recipe.calibration is None:
        return _split(subject, data)
    return Data(samples_for(subject, data), _calibration(subject, recipe, given, folder))


def _calibration(
    subject: Subject, recipe: Recipe, given: Iterable[Any] | None, folder: Path
) -> Samples:
    if given is not None:
        return spooled_samples(given, subject.examples(), folder)
    assert recipe.calibration is not None
    if recipe.calibration != SYNTHETIC:
        return samples_for(subject, Path(recipe.calibration))
    name = subject.input_names[0]
    if subject.preprocessing is not None:
        return synthetic_samples(name, SYNTHETIC_SAMPLES, subject.preprocessing, seed=_SEED)
    if subject.own:
        raise InputError(
            "the network takes no images, so there is nothing synthetic to calibrate on: give an "
            ".npz with an array for each input."
        )
    shape = subject.examples()[name].shape[1:]
    return normal_samples(name, SYNTHETIC_SAMPLES, *shape, seed=_SEED)


def _split(subject: Subject, data: Path | None) -> Data:
    """Of `data` every fourth sample for parity, in the order of their hashes; each once, also where
    two files show the same.
    """
    if data is None:
        raise InputError(
            "INT8 and FP8 need samples to find their ranges on. Give --calibration with a folder "
            "of images or an .npz (100 or more, like those in production), --data for both, or "
            "--calibration synthetic to only try it."
        )
    if data.suffix == ".npz":
        hashes = sample_hashes(samples_for(subject, data))
        held, rest = (sorted(part) for part in _parted(hashes, range(len(hashes)), data))
        classes = subject.info.num_classes
        validation, calibration = (
            npz_samples(data, subject.examples(), num_classes=classes, rows=part)
            for part in (held, rest)
        )
        return Data(validation, calibration, divided=True)
    labels = samples_for(subject, data).labels  # refuses what is no folder of images for this model
    assert subject.preprocessing is not None
    name, preprocessing = subject.input_names[0], subject.preprocessing
    paths = find_images(data)
    images = image_samples(name, paths, preprocessing)
    hashes = sample_hashes(images)
    readable = [path for path in paths if path not in images.unreadable]
    held_paths, rest_paths = _parted(hashes, readable, data)
    known = None if labels is None else dict(zip(paths, labels, strict=True))
    return Data(
        image_samples(
            name,
            held_paths,
            preprocessing,
            None if known is None else [known[path] for path in held_paths],
        ),
        image_samples(name, [*rest_paths, *images.unreadable], preprocessing),  # to be told of
        divided=True,
    )


def _parted(hashes: Sequence[str], items: Sequence[T], data: Path) -> tuple[list[T], list[T]]:
    """One in four, and the rest; what is there twice counts once."""
    unique = sorted(dict(zip(hashes, items, strict=True)).items())
    if len(unique) < _ONE_IN:
        raise InputError(
            f"{data} holds {len(unique)} different samples; to calibrate on some and judge on "
            f"others it takes {_ONE_IN} at least. Give --calibration with samples of its own."
        )
    held = [item for place, (_, item) in enumerate(unique) if place % _ONE_IN == 0]
    rest = [item for place, (_, item) in enumerate(unique) if place % _ONE_IN]
    return held, rest
