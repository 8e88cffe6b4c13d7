"""A bundle on disk: written all or nothing, and verified before anything in it is used."""

from sam_deploy.bundle.files import (
    EXAMPLE,
    MANIFEST,
    MANIFEST_SUM,
    MODEL,
    PARITY,
    QUANTIZATION,
    file_infos,
)
from sam_deploy.bundle.manifest_file import read_manifest, write_manifest
from sam_deploy.bundle.reading import read_bundle
from sam_deploy.bundle.staging import publish, set_aside, staged
from sam_deploy.bundle.target import bundle_path, check_target

__all__ = [
    "EXAMPLE",
    "MANIFEST",
    "MANIFEST_SUM",
    "MODEL",
    "PARITY",
    "QUANTIZATION",
    "bundle_path",
    "check_target",
    "file_infos",
    "publish",
    "read_bundle",
    "read_manifest",
    "set_aside",
    "staged",
    "write_manifest",
]
