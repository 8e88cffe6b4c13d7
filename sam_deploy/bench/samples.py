"""The batches that contestants are timed on, and what PyTorch makes of them."""

from __future__ import annotations

from sam_deploy.example import Example
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.reference import Subject
from sam_deploy.runner import Arrays
from sam_deploy.verification import Asked


def batch_of(subject: Subject, asked: Asked, batch: int) -> Arrays:
    """As many samples, repeats where there are fewer."""
    samples = samples_for(subject, asked.data, labels="none", limit=asked.limit)
    return next(samples.filled(batch, batch, lambda rows: None))


def example_of(subject: Subject, asked: Asked, batch: int) -> Example:
    """The same with the reference's outputs."""
    inputs = batch_of(subject, asked, batch)
    return Example(inputs, subject.run(inputs))
