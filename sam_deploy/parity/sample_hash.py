"""What samples are, as hashes of what the model sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from sam_deploy.parity.samples import Samples
from sam_deploy.runner import Array, Arrays


class SamplesHash:
    """A SHA-256 chain over the samples that were really used, fed batch by batch.

    h = SHA-256(h of the samples before, this sample's inputs one after the other): `digest` is all
    that is needed to go on from where an earlier run stopped.
    """

    def __init__(self, digest: bytes = b"") -> None:
        self.digest = digest

    def update(self, batch: Mapping[str, Array]) -> None:
        """Take in a batch."""
        for row in range(len(next(iter(batch.values())))):
            link = hashlib.sha256(self.digest)
            for array in batch.values():
                link.update(np.ascontiguousarray(array[row]).tobytes())
            self.digest = link.digest()

    def over(self, samples: Samples) -> Samples:
        """The same `samples`, taken in as they pass."""

        def make(start: int) -> Iterator[tuple[int, Arrays]]:
            for number, sample in samples.make(start):
                self.update({name: array[None] for name, array in sample.items()})
                yield number, sample

        return replace(samples, make=make)

    def hexdigest(self) -> str:
        """The hash so far."""
        return self.digest.hex()


def sample_hashes(samples: Samples) -> list[str]:
    """SHA-256 of each sample as the model sees it, in order.

    Raises:
        InputError: there were images, but none that could be read.
    """
    hashes = []
    for sample in samples.batches(1):
        one = SamplesHash()
        one.update(sample)
        hashes.append(one.hexdigest())
    return hashes
