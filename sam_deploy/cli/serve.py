"""`sam-serve`: bundles over the Open Inference Protocol, REST and gRPC."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sam_deploy.cli._run import exit_with, parser, print_json, run
from sam_deploy.cli._serve_kserve import add_kserve_flags, print_manifests, serves_on_kserve
from sam_deploy.cli._serve_ray import add_ray_flags, serve_on_ray, serves_on_ray
from sam_deploy.cli._tables import print_rows
from sam_deploy.errors import InputError
from sam_deploy.runtime import BACKENDS

if TYPE_CHECKING:
    import asyncio

    from sam_deploy.serving.options import ServeOptions
    from sam_deploy.serving.server import Addresses, Listen

TOKEN = "SAM_SERVE_TOKEN"  # noqa: S105  (the variable's name)
T = TypeVar("T", int, float)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    made = parser("Serve bundles over the Open Inference Protocol.", prog="sam-serve")
    made.add_argument(
        "bundles",
        nargs="+",
        type=Path,
        metavar="bundle",
        help="a bundle's folder, or NAME=FOLDER for another name than the folder's",
    )
    made.add_argument(
        "--triton", type=Path, metavar="REPO",
        help="serve nothing; write the bundles into this model repository for NVIDIA's Triton",
    )  # fmt: skip
    made.add_argument(
        "--ray", action="store_true", help="serve on a Ray cluster, REST alone; needs the extra ray"
    )
    ports = made.add_argument_group("where")
    ports.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1, this machine alone")
    ports.add_argument("--http-port", type=int, default=8000, help="REST; 0 is any that is free")
    ports.add_argument("--grpc-port", type=int, help="default 8001")
    ports.add_argument("--metrics-port", type=int, help="Prometheus; default 8002")
    ports.add_argument("--tls-cert", type=Path, help="PEM; with --tls-key, for REST and gRPC")
    ports.add_argument("--tls-key", type=Path)
    ports.add_argument(
        "--token-file", type=Path, help=f"the bearer token that requests need; or ${TOKEN}"
    )
    how = made.add_argument_group("how")
    how.add_argument("--require", metavar="BACKEND", help=f"{', '.join(BACKENDS)}: that or none")
    how.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of ONNX Runtime (default: OMP_NUM_THREADS, or all cores)",
    )
    how.add_argument("--refuse-nan", action="store_true", help="refuse inputs with NaN or infinity")
    how.add_argument(
        "--max-batch", action="append", default=[], metavar="[MODEL=]ROWS",
        help="run together at most (default: 4 on a CPU; on a GPU 32, or the plan's)",
    )  # fmt: skip
    how.add_argument(
        "--max-delay-ms", action="append", default=[], metavar="[MODEL=]MS",
        help="wait so long for company (default: 0 on a CPU, 1 on a GPU)",
    )  # fmt: skip
    how.add_argument("--no-reload", action="store_true", help="do not look for new versions")
    how.add_argument("--log-level", choices=("debug", "info", "warning"), default="info")
    limits = made.add_argument_group("limits")
    limits.add_argument("--queue", type=int, default=256, help="requests of a model that may wait")
    limits.add_argument("--timeout-s", type=float, default=60.0, help="for one request")
    limits.add_argument("--max-request-mb", type=float, default=64.0)
    limits.add_argument("--max-image-mpx", type=float, default=64.0, help="of an encoded image")
    limits.add_argument(
        "--drain-s", type=float, help="not ready, but serving, before it stops (default: 1)"
    )
    add_ray_flags(made)
    add_kserve_flags(made)
    return run(made, _serve, argv)


def _serve(arguments: argparse.Namespace) -> None:
    if serves_on_kserve(arguments):
        print_manifests(arguments)
        return
    if serves_on_ray(arguments):
        serve_on_ray(arguments, _token(arguments.token_file), _batching(arguments))
        return
    if arguments.triton is not None:
        _write_triton(arguments)
        return
    options, listen = _options(arguments)
    import asyncio

    from sam_deploy.serving.allocator import keep_freed_memory
    from sam_deploy.serving.logs import log_to_stderr
    from sam_deploy.serving.server import serve

    log_to_stderr(arguments.log_level)
    keep_freed_memory()

    def ready(addresses: Addresses) -> None:
        said = dataclasses.asdict(addresses)
        if arguments.json:
            print_json(said)
        else:
            models = [("model", f"{name}: {runs}") for name, runs in addresses.models.items()]
            print_rows([(name, said[name]) for name in ("rest", "grpc", "metrics")] + models)
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(arguments.bundles, options, listen, ready))


def _write_triton(arguments: argparse.Namespace) -> None:
    from sam_deploy.serving.triton import write_repository

    max_image_px = int(arguments.max_image_mpx * 10**6)
    written = write_repository(arguments.triton, arguments.bundles, max_image_px)
    for note in written.notes:
        sys.stderr.write(f"note: {note}\n")
    if arguments.json:
        print_json(dataclasses.asdict(written))
    else:
        print_rows([("model", str(arguments.triton / name)) for name in written.models])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _options(arguments: argparse.Namespace) -> tuple[ServeOptions, Listen]:
    from sam_deploy.serving.options import ServeOptions
    from sam_deploy.serving.server import Listen

    options = ServeOptions(
        require=arguments.require,
        threads=arguments.threads,
        refuse_nan=arguments.refuse_nan,
        **_batching(arguments),
        queue=arguments.queue,
        timeout_s=arguments.timeout_s,
        max_request_bytes=int(arguments.max_request_mb * 2**20),
        max_image_px=int(arguments.max_image_mpx * 10**6),
        reload_s=None if arguments.no_reload else ServeOptions.reload_s,
    )
    names = ("host", "http_port", "grpc_port", "metrics_port", "tls_cert", "tls_key", "drain_s")
    given = {name: getattr(arguments, name) for name in names}
    told = {name: value for name, value in given.items() if value is not None}
    return options, Listen(token=_token(arguments.token_file), **told)


def _batching(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "max_batch": _by_model(arguments.max_batch, int, "--max-batch"),
        "max_delay_ms": _by_model(arguments.max_delay_ms, float, "--max-delay-ms"),
    }


def _by_model(given: Sequence[str], kind: Callable[[str], T], flag: str) -> dict[str, T]:
    """Values by model name, that of "" for all others."""
    found: dict[str, T] = {}
    for text in given:
        model, _, value = text.rpartition("=")
        try:
            found[model] = kind(value)
        except ValueError:
            raise InputError(f"{flag} {text}: expected a number, or MODEL=number.") from None
    return found


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the token in {file}: {error}.") from None
    if not token:
        raise InputError(f"{file} holds no token.")
    return token


if __name__ == "__main__":
    exit_with(main)
