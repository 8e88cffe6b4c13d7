"""Every artefact, run by the runtime, against the untouched FP32 model: a gate, not a note."""

from sam_deploy.parity.folders import folder_samples
from sam_deploy.parity.gate import PARITY_BATCH, measure_parity
from sam_deploy.parity.sample_hash import SamplesHash, sample_hashes
from sam_deploy.parity.samples import (
    Samples,
    array_samples,
    image_samples,
    normal_samples,
    synthetic_samples,
)

__all__ = [
    "PARITY_BATCH",
    "Samples",
    "SamplesHash",
    "array_samples",
    "folder_samples",
    "image_samples",
    "measure_parity",
    "normal_samples",
    "sample_hashes",
    "synthetic_samples",
]
