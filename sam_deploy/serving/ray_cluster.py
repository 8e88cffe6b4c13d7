"""Bundles on a Ray cluster until a signal: on the one that runs, or on one of our own."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve

from sam_deploy.errors import InputError, MachineError
from sam_deploy.serving.names import model_names
from sam_deploy.serving.ray import application
from sam_deploy.serving.ray_args import RayArgs

_OURS = "sam-serve"


@dataclass(frozen=True)
class RayAddress:
    """Where REST is to be found: on every node with a replica, at this port."""

    rest: str
    cluster: str
    models: list[str]


def serve_on_ray(
    given: RayArgs,
    host: str,
    port: int,
    token: str | None = None,
    ready: Callable[[RayAddress], None] = lambda address: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then what is under way is answered first.

    `ready` is told once, when requests are taken. Port 0 is any that is free here.

    Raises:
        InputError: an argument is none, the port is taken, or the cluster serves something already.
        BundleError: a bundle is not whole.
        MachineError: there is no such cluster, or no replica starts on it.
    """
    wanted = application(given, token)
    port = _free(host, port)
    with _until_signal() as heed, _cluster() as address:
        heed()  # Ray has put its own handler of SIGTERM in place, which exits at once
        running = serve.status()
        if running.proxies or running.applications:
            raise InputError(
                "this Ray cluster serves something already, on ports of its own. Add the bundle to "
                "it with `serve deploy sam_deploy.serving.ray:app bundle=...`, or run `serve "
                "shutdown` first."
            )
        try:
            serve.start(
                proxy_location="EveryNode",
                http_options={"host": host, "port": port},
                logging_config={"log_level": "WARNING", "enable_access_log": False},
            )
            try:
                serve.run(wanted, name=_OURS, logging_config={"enable_access_log": False})
            except RuntimeError as error:
                raise MachineError(f"the replicas do not start: {_why(error)}") from None
            shown = f"[{host}]" if ":" in host else host
            ready(RayAddress(f"http://{shown}:{port}", address, model_names(given.bundles)))
            threading.Event().wait()
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _cluster() -> Iterator[str]:
    """Connected to the one that $RAY_ADDRESS names or that runs here, or to one of our own."""
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "namespace": _OURS}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported unless asked for
    try:
        ray.init(os.environ.get("RAY_ADDRESS", "auto"), **quiet)
    except ConnectionError as error:
        if "RAY_ADDRESS" in os.environ:
            raise MachineError(f"no Ray cluster at {os.environ['RAY_ADDRESS']}: {error}") from None
        ray.init("local", include_dashboard=False, **quiet)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@contextmanager
def _until_signal() -> Iterator[Callable[[], None]]:
    """Left at SIGTERM or SIGINT; another one changes nothing while everything is being shut down.

    Yields what heeds them anew where a library has put its own handlers in place.
    """
    came = False

    def told(number: int, frame: object) -> None:
        nonlocal came
        if not came:
            came = True
            raise KeyboardInterrupt

    def heed() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, told)

    heed()
    # SystemExit is how Ray takes a SIGTERM while it starts.
    with suppress(KeyboardInterrupt, SystemExit):
        yield heed


def _why(error: RuntimeError) -> str:
    """What the last replica raised: Ray's own error does not say."""
    found = serve.status().applications.get(_OURS)
    said = [one.message.strip() for one in found.deployments.values()] if found else []
    last = said[0].splitlines()[-1] if said and said[0] else str(error)
    return re.sub(r"^sam_deploy\.errors\.\w+: ", "", last)


def _free(host: str, port: int) -> int:
    """Ray's proxies would share a port that is taken with whoever took it.

    Raises:
        InputError: it is taken.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as free:
            return int(free.getsockname()[1])
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another host or port."
        ) from None
