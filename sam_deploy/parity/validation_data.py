"""Which samples a model is validated on: a folder of images, an .npz, or what is built in."""

from __future__ import annotations

from pathlib import Path

from sam_deploy.errors import InputError
from sam_deploy.parity.folders import Labels, folder_samples, spread
from sam_deploy.parity.npz import npz_samples
from sam_deploy.parity.samples import Samples, array_samples, normal_samples, synthetic_samples
from sam_deploy.reference.subject import Subject

BUILT_IN_SAMPLES = 33  # with a batch of 4 the last one is a batch of 1


def samples_for(
    subject: Subject,
    data: Path | None,
    *,
    labels: Labels = "where they fit",
    limit: int | None = None,
) -> Samples:
    """The samples in `data`, or `limit` of them; without it built-in images, or the example inputs
    of a network that takes none, or for the SAM module normal tokens.

    Raises:
        InputError: `data` does not fit the inputs, or its labels the classes.
    """
    name, classes = subject.input_names[0], subject.info.num_classes
    if data is not None and data.suffix == ".npz":
        examples, labelled = subject.examples(), labels != "none"
        samples = npz_samples(data, examples, num_classes=classes, labelled=labelled)
        if limit is None:
            return samples
        rows = spread(samples.count, limit)
        return npz_samples(data, examples, num_classes=classes, labelled=labelled, rows=rows)
    if data is not None:
        if subject.preprocessing is None:
            raise InputError(
                f"{data} is no .npz, and the network has no preprocessing to make inputs of images "
                "with. Give an .npz with an array for each input "
                f"({', '.join(subject.input_names)}), samples in dimension 0, or preprocessing."
            )
        return folder_samples(
            name,
            data,
            subject.preprocessing,
            class_names=subject.class_names,
            num_classes=classes,
            labels=labels,
            limit=limit,
        )
    count = BUILT_IN_SAMPLES if limit is None else min(limit, BUILT_IN_SAMPLES)
    if subject.preprocessing is not None:
        return synthetic_samples(name, count, subject.preprocessing)
    if subject.own:
        return array_samples("example", {n: a[:limit] for n, a in subject.examples().items()})
    return normal_samples(name, count, *subject.examples()[name].shape[1:])
