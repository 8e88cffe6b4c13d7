"""The one handler behind REST, gRPC and Ray: everything that the protocol can ask."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import sam_deploy
from sam_deploy.serving.failures import ServingError
from sam_deploy.serving.message import InferRequest, InferResponse
from sam_deploy.serving.metrics import Metrics
from sam_deploy.serving.options import ServeOptions
from sam_deploy.serving.repository import Repository
from sam_deploy.serving.servable import Port, Servable

_log = logging.getLogger(__name__)
PLATFORM = "sam_deploy"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)


class Handler:
    """Answers for the models in `repository`. Once `draining` it says that it is not ready."""

    def __init__(self, repository: Repository, options: ServeOptions, metrics: Metrics) -> None:
        self.repository = repository
        self.metrics = metrics
        self.draining = False
        self._timeout_s = options.timeout_s

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self.draining and self.repository.ready

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether requests for this model should be.

        Raises:
            NotFound: there is none.
        """
        return not self.draining and self.repository.get(name, version).ready

    def metadata(self) -> dict[str, Any]:
        """Of the server."""
        return {
            "name": "sam-serve",
            "version": sam_deploy.__version__,
            "extensions": list(EXTENSIONS),
        }

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Of a model.

        Raises:
            NotFound: there is none.
        """
        model = self.repository.get(name, version)
        return {
            "name": model.name,
            "versions": [model.version],
            "platform": PLATFORM,
            "inputs": [_described(port) for port in model.inputs],
            "outputs": [_described(port) for port in model.outputs],
        }

    def statistics(self, name: str = "", version: str = "") -> list[dict[str, Any]]:
        """Of a model, or of all.

        Raises:
            NotFound: there is none.
        """
        models = [self.repository.get(name, version)] if name else list(self.repository)
        return [one.statistics.as_protocol(one.name, one.version) for one in models]

    def index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """The models there are."""
        return [
            {
                "name": one.name,
                "version": one.version,
                "state": "READY" if one.ready else "UNAVAILABLE",
                "reason": "" if one.ready else "its engine is being started",
            }
            for one in self.repository
            if one.ready or not ready_only
        ]

    async def infer(
        self, request: InferRequest, protocol: str, deadline_s: float | None = None
    ) -> InferResponse:
        """Answer a request; `deadline_s` is how long the connection gives it.

        Raises:
            ServingError: it cannot be answered; says why.
        """
        begun = time.perf_counter()
        code, known = "OK", ""
        try:
            model = self.repository.get(request.model, request.version)
            known = model.name
            limits = (self._timeout_s, request.timeout_s, deadline_s)
            timeout_s = min(limit for limit in limits if limit is not None)
            with model.using():
                return await model.infer(request, timeout_s)
        except ServingError as error:
            code = error.grpc_code
            raise
        except Exception:
            code = ServingError.grpc_code
            _log.exception("the request failed", extra={"request": _named(request)})
            raise ServingError("the server failed; its log says how") from None
        finally:
            seconds = time.perf_counter() - begun
            self.metrics.requested(known, protocol, code, seconds)
            level = logging.DEBUG if code == "OK" else logging.INFO
            if _log.isEnabledFor(level):
                told = {"protocol": protocol, "code": code, "ms": round(1e3 * seconds, 3)}
                _log.log(level, "inference", extra={"request": {**_named(request), **told}})

    def refused(self, protocol: str, error: ServingError) -> None:
        """Count a request that could not even be read."""
        self.metrics.requested("", protocol, error.grpc_code, 0.0)

    def model(self, name: str, version: str = "") -> Servable:
        """A model by name.

        Raises:
            NotFound: there is none.
        """
        return self.repository.get(name, version)


def _described(port: Port) -> dict[str, Any]:
    return {"name": port.name, "datatype": port.datatype, "shape": list(port.shape)}


def _named(request: InferRequest) -> Mapping[str, Any]:
    return {"model": request.model[:80], "id": request.id[:80]}
