"""A plan's bytes, as its manifest promises them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sam_deploy.errors import BundleError
from sam_deploy.manifest import Manifest
from sam_deploy.plans import FLAVOURS, Flavour, PlanInfo
from sam_deploy.tensorrt_family import FULL_NAME

# What serialized engines begin with. It is not documented, so it can only speak against a plan:
# one that begins otherwise goes on to TensorRT, which has the last word.
_MAGIC: dict[Flavour, bytes] = {"tensorrt": b"ftrt", "tensorrt-rtx": b"vtrt"}


def read_plan(folder: Path, manifest: Manifest, plan: PlanInfo) -> bytes:
    """The bytes of `plan` in the bundle `folder`. A plan is code: deserialize these and no others.

    Raises:
        BundleError: the file is gone, its SHA-256 is not the manifest's, or it is a plan of another
            flavour than its passport says.
    """
    path = folder / plan.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}. Copy the bundle again.") from None
    if hashlib.sha256(data).hexdigest() != manifest.files[plan.file].sha256:
        raise BundleError(
            f"{path} is not what its manifest lists, and a plan is code: it is not loaded. "
            "Copy the bundle again."
        )
    for flavour in FLAVOURS:
        if flavour != plan.flavour and data.startswith(_MAGIC[flavour]):
            raise BundleError(
                f"{path} is a plan of {FULL_NAME[flavour]}, its passport says "
                f"{FULL_NAME[plan.flavour]}: it is not loaded. "
                f"Run `sam-export --rebuild {folder}`."
            )
    return data
