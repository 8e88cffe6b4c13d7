"""The protocol over gRPC: tritonclient's service, on grpc.aio.

Messages are parsed here and not by grpc: one that is none is then INVALID_ARGUMENT, as others are.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from sam_deploy.serving.auth import check_token
from sam_deploy.serving.failures import BadRequest, ServingError
from sam_deploy.serving.handler import Handler
from sam_deploy.serving.model_config import model_config
from sam_deploy.serving.proto_codec import decode_infer, encode_infer, parse_infer

Parse = Callable[[bytes], Any]
SERVICE = "inference.GRPCInferenceService"
_OPEN = ("ServerLive", "ServerReady")
_log = logging.getLogger(__name__)


class GrpcService:
    """The service of a `handler`."""

    def __init__(self, handler: Handler, token: str | None = None) -> None:
        self._handler = handler
        self._token = token

    def rpc_handlers(self) -> Any:
        """What a grpc server registers."""
        unary: dict[str, tuple[Parse, Callable[..., Awaitable[Any]]]] = {
            "ServerLive": (pb.ServerLiveRequest.FromString, self._live),
            "ServerReady": (pb.ServerReadyRequest.FromString, self._ready),
            "ModelReady": (pb.ModelReadyRequest.FromString, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest.FromString, self._metadata),
            "ModelMetadata": (pb.ModelMetadataRequest.FromString, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest.FromString, self._config),
            "ModelStatistics": (pb.ModelStatisticsRequest.FromString, self._statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest.FromString, self._index),
            "ModelInfer": (parse_infer, self._infer),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(self._answering(name, parse, done))
            for name, (parse, done) in unary.items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _answering(
        self, name: str, parse: Parse, done: Callable[..., Awaitable[Any]]
    ) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def answer(data: bytes, context: Any) -> bytes:
            try:
                if name not in _OPEN:
                    check_token(self._token, _authorization(context))
                found = await done(_parsed(name, parse, data), context.time_remaining())
                return bytes(found.SerializeToString())
            except ServingError as error:
                failure = error
                if name == "ModelInfer":
                    _log.info(
                        "refused",
                        extra={"request": {"code": error.grpc_code, "why": str(error)[:200]}},
                    )
            except Exception:
                _log.exception("the request failed")
                failure = ServingError("the server failed; its log says how")
            await context.abort(getattr(grpc.StatusCode, failure.grpc_code), str(failure))
            raise AssertionError("unreachable: abort raises")

        return answer

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each is answered in its turn; one that fails does not end the stream."""
        try:
            check_token(self._token, _authorization(context))
        except ServingError as error:
            await context.abort(getattr(grpc.StatusCode, error.grpc_code), str(error))
        async for data in requests:
            try:
                message = _parsed("ModelInfer", parse_infer, data)
                found = await self._infer(message, context.time_remaining())
                yield pb.ModelStreamInferResponse(infer_response=found).SerializeToString()
            except ServingError as error:
                yield pb.ModelStreamInferResponse(error_message=str(error)).SerializeToString()

    async def _infer(self, parsed: Any, remaining_s: float | None) -> Any:
        try:
            request = decode_infer(*parsed)
        except ServingError as error:
            self._handler.refused("grpc", error)
            raise
        return encode_infer(await self._handler.infer(request, "grpc", remaining_s))

    async def _live(self, message: Any, remaining_s: float | None) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, message: Any, remaining_s: float | None) -> Any:
        return pb.ServerReadyResponse(ready=self._handler.ready)

    async def _model_ready(self, message: Any, remaining_s: float | None) -> Any:
        return pb.ModelReadyResponse(ready=self._handler.model_ready(message.name, message.version))

    async def _metadata(self, message: Any, remaining_s: float | None) -> Any:
        return pb.ServerMetadataResponse(**self._handler.metadata())

    async def _model_metadata(self, message: Any, remaining_s: float | None) -> Any:
        return pb.ModelMetadataResponse(
            **self._handler.model_metadata(message.name, message.version)
        )

    async def _config(self, message: Any, remaining_s: float | None) -> Any:
        model = self._handler.model(message.name, message.version)
        return pb.ModelConfigResponse(config=model_config(model))

    async def _statistics(self, message: Any, remaining_s: float | None) -> Any:
        found = self._handler.statistics(message.name, message.version)
        return pb.ModelStatisticsResponse(model_stats=found)

    async def _index(self, message: Any, remaining_s: float | None) -> Any:
        return pb.RepositoryIndexResponse(models=self._handler.index(ready_only=message.ready))


def _parsed(name: str, parse: Parse, data: bytes) -> Any:
    try:
        return parse(data)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise BadRequest(f"not a {name}Request: {error}") from None


def _authorization(context: Any) -> bytes:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, bytes) else str(value).encode()
    return b""
