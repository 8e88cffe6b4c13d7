"""What the page shows of single samples: how the errors are spread, and the worst ones."""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from sam_deploy.parity import Samples
from sam_deploy.preprocess import Preprocessing
from sam_deploy.runner import Array, Arrays
from sam_deploy.verification.result import Guess, Histogram, WorstSample

KEPT = 12
_SIDE_PX = 112
_LEAST, _MOST, _A_DECADE = -8, 1, 5  # powers of ten, and bins in each
EDGES = [10 ** (_LEAST + i / _A_DECADE) for i in range((_MOST - _LEAST) * _A_DECADE + 1)]
_TOP = 5


class Seen(msgspec.Struct, kw_only=True):
    """What was kept so far: all that is needed to go on later."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(EDGES) - 1))
    worst: list[WorstSample] = msgspec.field(default_factory=list)


class Gallery:
    """Watches a comparison over `samples`. Of a classifier it keeps what both sides took each of
    the worst samples for: `softmax` says that outputs are probabilities already.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        classes: bool,
        class_names: Sequence[str],
        softmax: bool,
        preprocessing: Preprocessing | None,
    ) -> None:
        self.seen = Seen()
        self._samples = samples
        self._classes, self._names, self._softmax = classes, class_names, softmax
        self._preprocessing = preprocessing

    def watch(
        self, numbers: Sequence[int], inputs: Arrays, actual: Arrays, expected: Arrays
    ) -> None:
        """Take in a batch."""
        if not actual:
            return
        errors = np.max([_row_errors(actual[name], expected[name]) for name in actual], axis=0)
        places = np.searchsorted(EDGES, np.clip(errors, EDGES[0], EDGES[-2]), side="right") - 1
        for place in places:
            self.seen.counts[place] += 1
        for row in np.argsort(-errors, kind="stable")[:KEPT]:
            worst = self.seen.worst
            if len(worst) == KEPT and errors[row] <= worst[-1].error:
                break
            worst.append(
                self._described(numbers[row], float(errors[row]), row, inputs, actual, expected)
            )
            worst.sort(key=lambda one: -one.error)
            del worst[KEPT:]

    def histogram(self) -> Histogram:
        """How many samples have which error."""
        return Histogram(edges=EDGES, counts=self.seen.counts)

    def _described(
        self,
        number: int,
        error: float,
        row: np.intp,
        inputs: Arrays,
        actual: Arrays,
        expected: Arrays,
    ) -> WorstSample:
        labels = self._samples.labels
        (a, r), *_ = zip(actual.values(), expected.values(), strict=True)
        return WorstSample(
            sample=self._samples.name(number),
            error=error,
            label=None if labels is None else self._class_name(labels[number]),
            reference=self._guesses(r[row]) if self._classes else [],
            artefact=self._guesses(a[row]) if self._classes else [],
            thumbnail=self._thumbnail(next(iter(inputs.values()))[row]),
        )

    def _guesses(self, scores: Array) -> list[Guess]:
        values = scores.astype(np.float64)
        if not self._softmax:
            values = np.exp(values - values.max())
            values /= values.sum()
        best = [int(index) for index in np.argsort(-values, kind="stable")[:_TOP]]
        return [
            Guess(class_index=i, name=self._class_name(i), score=float(values[i])) for i in best
        ]

    def _class_name(self, index: int) -> str:
        return self._names[index] if self._names else f"class {index}"

    def _thumbnail(self, x: Array) -> bytes | None:
        """What the model saw, as a PNG."""
        from PIL import Image

        how = self._preprocessing
        if how is None or x.ndim != 3 or x.shape[0] != 3:
            return None
        pixels = x.transpose(1, 2, 0).astype(np.float64)
        if how.channels == "BGR":
            pixels = pixels[..., ::-1]
        pixels = np.clip((pixels * how.std + how.mean) * 255, 0, 255).round()
        image = Image.fromarray(np.ascontiguousarray(pixels, np.uint8))
        image.thumbnail((_SIDE_PX, _SIDE_PX))
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def _row_errors(actual: Array, expected: Array) -> npt.NDArray[np.float64]:
    """Of each row the RMS of the difference over the standard deviation of the reference; of
    integers the part that differs.
    """
    a, r = (x.reshape(len(x), -1) for x in (actual, expected))
    if r.dtype.kind != "f":
        found: npt.NDArray[np.float64] = (a != r).mean(axis=1)
        return found
    difference = a.astype(np.float64) - r.astype(np.float64)
    rms = np.sqrt(np.square(difference).mean(axis=1))
    spread = r.astype(np.float64).std(axis=1)
    errors: npt.NDArray[np.float64] = np.divide(
        rms, spread, out=np.where(rms > 0, EDGES[-1], 0.0), where=spread > 0
    )
    return errors
