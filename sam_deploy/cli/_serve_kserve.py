"""`sam-serve --kserve`: manifests instead of a server."""

from __future__ import annotations

import argparse
import sys

from sam_deploy.bundle import read_bundle
from sam_deploy.cli._run import print_json
from sam_deploy.errors import InputError


def add_kserve_flags(made: argparse.ArgumentParser) -> None:
    """What manifests are told."""
    flags = made.add_argument_group("kserve")
    flags.add_argument(
        "--kserve", choices=("sam-serve", "triton"),
        help="serve nothing; print manifests for KServe, with our container or with Triton's",
    )  # fmt: skip
    flags.add_argument(
        "--storage-uri", help="where the cluster gets the bundle: s3://, pvc://, ..."
    )
    flags.add_argument("--name", help="of the service (default: the bundle's)")
    flags.add_argument("--image", help="of our container (default: sam-serve:cpu or :gpu)")
    flags.add_argument("--gpu", action="store_true", help="ask for one")


def serves_on_kserve(arguments: argparse.Namespace) -> bool:
    """Whether manifests are wanted.

    Raises:
        InputError: a flag of theirs without `--kserve`.
    """
    given = [name for name in ("storage_uri", "name", "image", "gpu") if getattr(arguments, name)]
    if given and arguments.kserve is None:
        raise InputError(f"--{given[0].replace('_', '-')} is for --kserve.")
    return arguments.kserve is not None


def print_manifests(arguments: argparse.Namespace) -> None:
    """YAML on stdout, to be piped into `kubectl apply -f -`.

    Raises:
        InputError: not one bundle, no storage URI, or a name that is none.
        BundleError: the bundle is not whole.
    """
    from sam_deploy.serving.kserve import Deployment, kserve_name, manifests
    from sam_deploy.serving.names import bundle_folder

    if len(arguments.bundles) != 1:
        raise InputError(f"--kserve takes one bundle; got {len(arguments.bundles)}.")
    if arguments.storage_uri is None:
        raise InputError("--kserve needs --storage-uri: where the cluster gets the bundle.")
    (bundle,) = arguments.bundles
    asked = Deployment(
        storage_uri=arguments.storage_uri,
        runtime=arguments.kserve,
        name=arguments.name,
        image=arguments.image,
        gpu=arguments.gpu,
    )
    manifest = read_bundle(bundle_folder(bundle))
    objects = manifests(manifest, asked)
    name, wanted = objects[-1]["metadata"]["name"], arguments.name or manifest.name
    if name != wanted:
        assert name == kserve_name(wanted)
        sys.stderr.write(f"note: the service is called {name}; clusters have no {wanted!r}\n")
    if arguments.json:
        print_json(objects)
        return
    import yaml

    sys.stdout.write(yaml.safe_dump_all(objects, sort_keys=False))
