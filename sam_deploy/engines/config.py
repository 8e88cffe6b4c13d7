"""What the builder is told: batch profile, target GPUs. Precision is in the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sam_deploy.errors import CheckFailed
from sam_deploy.plans import BatchProfile
from sam_deploy.tensorrt_family import Member

_FREE = -1


def builder_config(builder: Any, member: Member, capabilities: Sequence[str]) -> Any:
    """The IBuilderConfig; TensorRT-RTX builds for `capabilities` ("8.9"), its default if none."""
    config = builder.create_builder_config()
    # TF32 rounds FP32 to 10 bits: FP32 plans and islands are FP32 because they must be exact.
    config.clear_flag(member.trt.BuilderFlag.TF32)
    if member.flavour == "tensorrt-rtx":
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            target = getattr(member.trt.ComputeCapability, f"SM{capability.replace('.', '')}")
            config.set_compute_capability(target, index)
    return config


def add_profile(builder: Any, network: Any, config: Any, batch: BatchProfile) -> bool:
    """Add `batch` as the profile of every input whose batch is free; False where all are fixed.

    Raises:
        CheckFailed: another size than the batch is free, so no profile can be made.
    """
    profile = builder.create_optimization_profile()
    added = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tuple(tensor.shape)
        if _FREE in rest:
            raise CheckFailed(
                f"input {tensor.name} has dims {(first, *rest)}: plans are built for a free batch "
                "only, -1 in the first place. Fix the other sizes."
            )
        if first == _FREE:
            sizes = ((size, *rest) for size in (batch.min, batch.opt, batch.max))
            profile.set_shape(tensor.name, *sizes)
            added = True
    if added:
        config.add_optimization_profile(profile)
    return added
