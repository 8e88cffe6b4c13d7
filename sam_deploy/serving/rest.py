"""The protocol over REST, as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from sam_deploy.serving.auth import check_token
from sam_deploy.serving.body import Headers, packed, read_body
from sam_deploy.serving.failures import BadRequest, ServingError, TooLarge, Unavailable
from sam_deploy.serving.handler import Handler
from sam_deploy.serving.json_codec import decode_infer, encode_infer
from sam_deploy.serving.model_config import model_config_json
from sam_deploy.serving.options import ServeOptions

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]
_JSON_BYTES = b"inference-header-content-length"
_OPEN = ("/v2/health/", "/v2/health")
_PAGE = "page.html"
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_log = logging.getLogger(__name__)


class RestApp:
    """The ASGI application of a `handler`."""

    def __init__(self, handler: Handler, options: ServeOptions, token: str | None = None) -> None:
        self._handler = handler
        self._max_bytes = options.max_request_bytes
        self._token = token
        one = "/v2/models/{model}"
        gets = {
            "/": self._page,
            "/v2": self._metadata,
            "/v2/": self._metadata,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2/models/stats": self._statistics,
        }
        for path in (one, f"{one}/versions/{{version}}"):
            gets[path] = self._model
            gets[f"{path}/ready"] = self._model_ready
            gets[f"{path}/config"] = self._config
            gets[f"{path}/stats"] = self._statistics
        posts = {
            f"{one}/infer": self._infer,
            f"{one}/versions/{{version}}/infer": self._infer,
            "/v2/repository/index": self._index,
            "/v2/repository/models/{model}/load": self._operated,
            "/v2/repository/models/{model}/unload": self._operated,
        }
        self._others = Starlette(
            routes=[
                *(
                    Route(path, _Endpoint(self, done), methods=["POST"])
                    for path, done in posts.items()
                ),
                *(
                    Route(path, _Endpoint(self, done), methods=["GET"])
                    for path, done in gets.items()
                ),
            ],
            exception_handlers={HTTPException: _unrouted},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Inference straight on, everything else through Starlette's routes."""
        found = _INFER.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found is None or scope["method"] != "POST":
            await self._others(scope, receive, send)
            return
        scope["path_params"] = {"model": found[1], "version": found[2] or ""}
        await _send(send, await self.answer(scope, receive, self._infer))

    async def answer(
        self, scope: Scope, receive: Receive, done: Callable[..., Awaitable[Answer]]
    ) -> Answer:
        """What `done` answers, or the error that it raised in the protocol's form."""
        headers: Headers = dict(scope["headers"])
        try:
            if not scope["path"].startswith(_OPEN) and done != self._page:
                check_token(self._token, headers.get(b"authorization", b""))
            return await done(scope["path_params"], headers, receive)
        except ServingError as error:
            if done == self._infer:
                _log.info(
                    "refused", extra={"request": {"code": error.grpc_code, "why": str(error)[:200]}}
                )
            return _failure(error)
        except Exception:
            _log.exception("the request failed")
            return _failure(ServingError("the server failed; its log says how"))

    async def _infer(self, path: dict[str, str], headers: Headers, receive: Receive) -> Answer:
        try:
            body = await read_body(receive, headers, self._max_bytes)
            json_bytes = _integer(headers.get(_JSON_BYTES))
            model, version = path["model"], path.get("version", "")
            if len(body) > 1 << 20 and json_bytes is None:  # JSON of that size blocks for long
                request = await asyncio.to_thread(decode_infer, model, version, body, json_bytes)
            else:
                request = decode_infer(model, version, body, json_bytes)
        except ServingError as error:
            self._handler.refused("rest", error)
            raise
        response = await self._handler.infer(request, "rest")
        found, json_bytes = encode_infer(response, request)
        told = []
        accepted = headers.get(b"accept-encoding", b"")
        if accepted in (b"gzip", b"deflate"):
            found, encoding = packed(found, accepted)
            told.append((b"content-encoding", (encoding or "").encode()))
        if json_bytes is None:
            return 200, found, [(b"content-type", b"application/json"), *told]
        told.append((_JSON_BYTES, b"%d" % json_bytes))
        return 200, found, [(b"content-type", b"application/octet-stream"), *told]

    async def _page(self, path: Any, headers: Headers, receive: Receive) -> Answer:
        html = files("sam_deploy.serving").joinpath(_PAGE).read_bytes()
        policy = (
            b"default-src 'none'; connect-src 'self'; img-src blob:; "
            b"style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        )
        kind = (b"content-type", b"text/html; charset=utf-8")
        return 200, html, [kind, (b"content-security-policy", policy)]

    async def _live(self, path: Any, headers: Headers, receive: Receive) -> Answer:
        return 200, b"", []

    async def _ready(self, path: Any, headers: Headers, receive: Receive) -> Answer:
        return (200 if self._handler.ready else 503), b"", []

    async def _metadata(self, path: Any, headers: Headers, receive: Receive) -> Answer:
        return _json(self._handler.metadata())

    async def _model(self, path: dict[str, str], headers: Headers, receive: Receive) -> Answer:
        return _json(self._handler.model_metadata(path["model"], path.get("version", "")))

    async def _model_ready(
        self, path: dict[str, str], headers: Headers, receive: Receive
    ) -> Answer:
        ready = self._handler.model_ready(path["model"], path.get("version", ""))
        return (200 if ready else 503), b"", []

    async def _config(self, path: dict[str, str], headers: Headers, receive: Receive) -> Answer:
        model = self._handler.model(path["model"], path.get("version", ""))
        return _json(model_config_json(model))

    async def _statistics(self, path: dict[str, str], headers: Headers, receive: Receive) -> Answer:
        found = self._handler.statistics(path.get("model", ""), path.get("version", ""))
        return _json({"model_stats": found})

    async def _index(self, path: Any, headers: Headers, receive: Receive) -> Answer:
        body = await read_body(receive, headers, self._max_bytes)
        try:
            asked = msgspec.json.decode(body, type=_IndexRequest) if body else _IndexRequest()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"not an index request: {error}") from None
        return _json(self._handler.index(ready_only=asked.ready))

    async def _operated(self, path: Any, headers: Headers, receive: Receive) -> Answer:
        raise BadRequest("models are loaded by putting a bundle in its place, not over the network")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _Endpoint:
    """One route's application: Starlette would make a request object of every call."""

    def __init__(self, rest: RestApp, done: Callable[..., Awaitable[Answer]]) -> None:
        self._rest, self._done = rest, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, await self._rest.answer(scope, receive, self._done))


async def _unrouted(request: Any, error: Exception) -> Any:
    """Paths and methods that there are not, in the protocol's form."""
    from starlette.responses import Response

    status = error.status_code if isinstance(error, HTTPException) else 500
    said = f"there is no {request.method} {request.url.path[:80]}"
    body = msgspec.json.encode({"error": said})
    return Response(body, status, media_type="application/json")


async def _send(send: Send, answer: Answer) -> None:
    status, body, headers = answer
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _json(data: Any) -> Answer:
    return 200, msgspec.json.encode(data), [(b"content-type", b"application/json")]


def _failure(error: ServingError) -> Answer:
    headers = [(b"content-type", b"application/json")]
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if isinstance(error, TooLarge):
        headers.append((b"connection", b"close"))  # more of it may be on its way
    return error.http_status, msgspec.json.encode({"error": str(error)}), headers


def _integer(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise BadRequest(f"{_JSON_BYTES.decode()} is no number of bytes")
    return int(value)
