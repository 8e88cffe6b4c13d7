"""What is given to an engine, held against what its manifest declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sam_deploy.errors import InputError
from sam_deploy.manifest import TensorSpec
from sam_deploy.plans import BatchProfile
from sam_deploy.runner import Array
from sam_deploy.runtime.gpu import DeviceView


def array_of(x: npt.ArrayLike) -> Array:
    """`x` as an array.

    Raises:
        InputError: it cannot be one: ragged, or a tensor elsewhere than on the CPU.
    """
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the input cannot be made an array: {error}") from None


def checked(x: Array, spec: TensorSpec) -> Array:
    """`x` as the input `spec`: contiguous, in its dtype.

    Raises:
        InputError: another shape, or values that the dtype does not hold.
    """
    _check_shape(x.shape, spec)
    kind = np.dtype(spec.dtype).kind
    if kind == "f":
        fits = x.dtype.kind == "f"
    else:
        fits = np.can_cast(x.dtype, spec.dtype, "safe") or _holds(x, spec.dtype)
    if not fits:
        raise InputError(
            f"input {spec.name} is {x.dtype}; expected {spec.dtype}"
            + (
                ", preprocessed (see manifest.preprocessing), or images as uint8 (B, H, W, 3)"
                if kind == "f"
                else ""
            )
        )
    return np.ascontiguousarray(x, dtype=spec.dtype)


def check_device_view(view: DeviceView, spec: TensorSpec) -> None:
    """Hold an array on the GPU, which is taken as it is, against the input `spec`.

    Raises:
        InputError: another shape or dtype.
    """
    _check_shape(view.shape, spec)
    if view.dtype != np.dtype(spec.dtype):
        raise InputError(
            f"input {spec.name} on the GPU is {view.dtype}; expected {spec.dtype}, since it is "
            "taken without a copy"
        )


def check_batch(
    shapes: Mapping[str, tuple[int, ...]],
    specs: Sequence[TensorSpec],
    profile: BatchProfile | None,
) -> None:
    """Sizes that have one name in the manifest are one size, and not below an engine's `profile`.

    Raises:
        InputError: they differ, or are below the profile.
    """
    sizes: dict[str, int] = {}
    for spec in specs:
        for size, dim in zip(shapes[spec.name], spec.dims, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise InputError(
                    f"input {spec.name} has {dim} {size}, the inputs before it {sizes[dim]}"
                )
    for dim, size in sizes.items():
        if profile and size < profile.min:
            raise _outside(dim, size, profile)


def check_profile(
    shapes: Mapping[str, tuple[int, ...]],
    specs: Sequence[TensorSpec],
    profile: BatchProfile | None,
) -> None:
    """As `check_batch`, and what a plan gets is not above its profile either: it cannot split.

    Raises:
        InputError: sizes differ, or are outside the profile.
    """
    check_batch(shapes, specs, profile)
    for spec in specs:
        for size, dim in zip(shapes[spec.name], spec.dims, strict=True):
            if profile and isinstance(dim, str) and size > profile.max:
                raise _outside(dim, size, profile)


def _outside(dim: str, size: int, profile: BatchProfile) -> InputError:
    return InputError(
        f"{dim} is {size}; this plan takes {profile.min} to {profile.max}. Give other "
        "batches, or set plans.profile in the recipe and export again."
    )


def _check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    fits = len(shape) == len(spec.dims) and all(
        size == wanted if isinstance(wanted, int) else size > 0
        for size, wanted in zip(shape, spec.dims, strict=False)
    )
    if not fits:
        expected = ", ".join(map(str, spec.dims))
        raise InputError(f"input {spec.name} has shape {shape}; expected ({expected})")


def _holds(x: Array, dtype: str) -> bool:
    """Whether the integers of `x` are all within `dtype`'s range."""
    if x.dtype.kind not in "iu" or dtype == "bool" or not x.size:
        return False
    range_ = np.iinfo(dtype)
    return bool(range_.min <= int(x.min()) and int(x.max()) <= range_.max)
