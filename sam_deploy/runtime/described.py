"""What a file says of its inputs and outputs, whoever reads it."""

from __future__ import annotations

from typing import NamedTuple

from sam_deploy.manifest import TensorSpec


class Described(NamedTuple):
    """An input or output as the file declares it; `dtype` is numpy's, or the runtime's own.

    A dim that is not fixed has its name, or "?" where the runtime forgets names.
    """

    name: str
    dtype: str
    dims: list[int | str]

    def is_as(self, spec: TensorSpec) -> bool:
        """Whether it is what `spec` declares."""
        return (
            (self.name, self.dtype) == (spec.name, spec.dtype)
            and len(self.dims) == len(spec.dims)
            and all(
                dim == declared or (dim == "?" and isinstance(declared, str))
                for dim, declared in zip(self.dims, spec.dims, strict=True)
            )
        )
