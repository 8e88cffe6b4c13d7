"""`sam-serve --ray`: its flags, and those that mean nothing with it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from sam_deploy.cli._run import print_json
from sam_deploy.cli._tables import print_rows
from sam_deploy.errors import InputError

if TYPE_CHECKING:
    from sam_deploy.serving.ray_cluster import RayAddress

_ALONE = ("triton", "grpc_port", "metrics_port", "tls_cert", "tls_key", "drain_s")
_ON_RAY = ("min_replicas", "max_replicas", "replica_cpus", "replica_gpus")


def add_ray_flags(made: argparse.ArgumentParser) -> None:
    """Those that go with --ray."""
    ray = made.add_argument_group("with --ray")
    ray.add_argument("--min-replicas", type=int, metavar="N", help="default 1")
    ray.add_argument("--max-replicas", type=int, metavar="N", help="default: --min-replicas")
    ray.add_argument("--replica-cpus", type=float, metavar="N", help="of each (default: 1)")
    ray.add_argument("--replica-gpus", type=float, metavar="N", help="of each (default: none)")


def serves_on_ray(arguments: argparse.Namespace) -> bool:
    """Whether --ray is given.

    Raises:
        InputError: a flag is given that means nothing then, or only then.
    """
    refused = _ALONE if arguments.ray else _ON_RAY
    for name in refused:
        if getattr(arguments, name) is not None:
            how = "means nothing with --ray" if arguments.ray else "needs --ray"
            raise InputError(f"--{name.replace('_', '-')} {how}.")
    return bool(arguments.ray)


def serve_on_ray(
    arguments: argparse.Namespace, token: str | None, batching: Mapping[str, Any]
) -> None:
    """Serve until a signal.

    Raises:
        SamDeployError: as `sam_deploy.serving.ray_cluster.serve_on_ray`.
    """
    from sam_deploy.serving.ray_args import ray_args
    from sam_deploy.serving.ray_cluster import serve_on_ray

    same = ("require", "threads", "refuse_nan", "queue", "timeout_s", "max_request_mb")
    given = {
        **{name: getattr(arguments, name) for name in (*same, "max_image_mpx", "log_level")},
        **batching,
        "bundle": [str(path) for path in arguments.bundles],
        "min_replicas": arguments.min_replicas,
        "max_replicas": arguments.max_replicas or arguments.min_replicas,
        "num_cpus": arguments.replica_cpus,
        "num_gpus": arguments.replica_gpus,
    }
    told = {name: value for name, value in given.items() if value is not None}
    if arguments.no_reload:
        told["reload_s"] = None

    ours = sys.stdout

    def ready(address: RayAddress) -> None:
        with redirect_stdout(ours):
            if arguments.json:
                print_json(dataclasses.asdict(address))
            else:
                models = [("model", name) for name in address.models]
                print_rows([("rest", address.rest), ("cluster", address.cluster), *models])
            sys.stdout.flush()

    with redirect_stdout(sys.stderr):  # Ray prints what its processes print
        serve_on_ray(ray_args(told), arguments.host, arguments.http_port, token, ready)
