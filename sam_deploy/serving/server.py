"""A server's life: models loaded, ports opened, requests answered, signals heeded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from sam_deploy.errors import InputError
from sam_deploy.serving.grpc_service import SERVICE, GrpcService
from sam_deploy.serving.handler import Handler
from sam_deploy.serving.http_protocol import HttpProtocol, WithBodyParts
from sam_deploy.serving.metrics import Metrics
from sam_deploy.serving.options import ServeOptions
from sam_deploy.serving.repository import Repository
from sam_deploy.serving.rest import RestApp

_log = logging.getLogger(__name__)
_BACKLOG = 2048


@dataclass(frozen=True)
class Listen:
    """Where a server listens; port 0 is any that is free. `token` and TLS hold for REST and gRPC.

    For `drain_s` after SIGTERM it says that it is not ready, and still takes requests.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    drain_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse half of a key pair.

        Raises:
            InputError: a certificate without its key, or the other way round, or not readable.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS takes a certificate and its key; one of them is missing.")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise InputError(f"{path} is no file; TLS takes a certificate and its key, in PEM.")


@dataclass(frozen=True)
class Addresses:
    """Where a server is to be found, and what it serves."""

    rest: str
    grpc: str
    metrics: str
    models: dict[str, str]


async def serve(
    bundles: Sequence[Path],
    options: ServeOptions,
    listen: Listen,
    ready: Callable[[Addresses], None] = lambda addresses: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then what is under way is answered first.

    `ready` is told once, when requests are taken.

    Raises:
        SamDeployError: a bundle does not load, or a port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    with contextlib.ExitStack() as sockets:
        http, scrape = (
            sockets.enter_context(_bound(listen.host, port))
            for port in (listen.http_port, listen.metrics_port)
        )
        repository = Repository(bundles, options, metrics)
        try:
            opening = asyncio.create_task(repository.open())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
                return
            await opening
            handler = Handler(repository, options, metrics)
            await _serve(handler, options, listen, http, scrape, stopped, ready)
        finally:
            stopped.cancel()
            await repository.close()
    _log.info("stopped")


async def _serve(
    handler: Handler,
    options: ServeOptions,
    listen: Listen,
    http: socket.socket,
    scrape: socket.socket,
    stopped: asyncio.Task[Any],
    ready: Callable[[Addresses], None],
) -> None:
    rpc, health, grpc_port = await _grpc(handler, options, listen)
    rest = _Http(_config(RestApp(handler, options, listen.token), listen))
    scraped = _Http(_config(_metrics_app(handler.metrics), Listen()))
    running = [
        asyncio.create_task(rest.serve([http])),
        asyncio.create_task(scraped.serve([scrape])),
    ]
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    addresses = Addresses(
        rest=f"{'https' if listen.tls_cert else 'http'}://{host}:{http.getsockname()[1]}",
        grpc=f"{host}:{grpc_port}",
        metrics=f"http://{host}:{scrape.getsockname()[1]}/metrics",
        models={one.name: " on ".join(one.about.values()) for one in handler.repository},
    )
    _log.info("ready", extra={"request": dataclasses.asdict(addresses)})
    ready(addresses)
    await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
    handler.draining = True
    await health.enter_graceful_shutdown()
    _log.info("draining")
    await asyncio.sleep(listen.drain_s)
    rest.should_exit = True
    await asyncio.gather(rpc.stop(options.timeout_s), running[0])
    scraped.should_exit = True
    await running[1]


async def _grpc(handler: Handler, options: ServeOptions, listen: Listen) -> tuple[Any, Any, int]:
    limit = options.max_request_bytes
    rpc = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    rpc.add_generic_rpc_handlers((GrpcService(handler, listen.token).rpc_handlers(),))
    health = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, rpc)
    for name in ("", SERVICE):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    address = f"{host}:{listen.grpc_port}"
    _bound(listen.host, listen.grpc_port).close()  # grpc's own words for a taken port are a page
    try:
        if listen.tls_cert and listen.tls_key:
            pair = (listen.tls_key.read_bytes(), listen.tls_cert.read_bytes())
            port = rpc.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = rpc.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(f"cannot listen on {address}: {error}. Choose another port.") from None
    await rpc.start()
    return rpc, health, port


class _Http(uvicorn.Server):
    """Signals are heeded by `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them as they are."""
        yield


def _config(app: Any, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        WithBodyParts(app),
        http=HttpProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        lifespan="off",
        ws="none",
        backlog=_BACKLOG,
        ssl_certfile=listen.tls_cert,
        ssl_keyfile=listen.tls_key,
    )


def _metrics_app(metrics: Metrics) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def text(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return Starlette(routes=[Route("/metrics", text)])


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another host or port."
        ) from None
