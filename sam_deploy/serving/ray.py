"""A bundle as an application of Ray Serve: the handler of sam-serve in every replica.

    serve run sam_deploy.serving.ray:app bundle=engines/x min_replicas=1 max_replicas=4

Bodies go through Ray as they came: a replica is an ASGI application. What Ray passes between
processes besides is plain: no engine, no model and no message of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ray import serve

from sam_deploy.bundle import read_bundle
from sam_deploy.errors import InputError
from sam_deploy.serving.failures import Unavailable
from sam_deploy.serving.handler import Handler
from sam_deploy.serving.logs import log_to_stderr
from sam_deploy.serving.metrics import Metrics
from sam_deploy.serving.names import bundle_folder, model_names
from sam_deploy.serving.options import ServeOptions
from sam_deploy.serving.ray_args import RayArgs, ray_args
from sam_deploy.serving.repository import Repository
from sam_deploy.serving.rest import RestApp

_STARTS = 3  # of a replica, until the application has failed
_opened: ContextVar[RestApp] = ContextVar("_opened")


def _asgi() -> RestApp:
    """What Ray asks for, right after the replica's constructor and in its context."""
    return _opened.get()


class Replica:
    """One of the application's: a process of Ray's with a handler in it."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, bundles: list[Path], options: ServeOptions, token: str | None, log_level: str
    ) -> None:
        log_to_stderr(log_level)
        metrics = Metrics()
        self._repository = Repository(bundles, options, metrics)
        try:
            await self._repository.open()
        except BaseException:
            await self._repository.close()
            raise
        self._handler = Handler(self._repository, options, metrics)
        _opened.set(RestApp(self._handler, options, token))

    async def check_health(self) -> None:
        """Ray asks now and then, and replaces a replica that says no three times.

        Raises:
            Unavailable: a model is not ready.
        """
        if not self._handler.ready:
            raise Unavailable("a model's engine is being started")

    async def __del__(self) -> None:
        """Ray calls it when what is under way is answered: engines and copies go."""
        if hasattr(self, "_handler"):
            self._handler.draining = True
            await self._repository.close()


def app(args: Mapping[str, Any]) -> serve.Application:
    """The application of `RayArgs`, as `serve run`, `serve deploy` and `serve build` ask for it.

    Raises:
        InputError: an argument is unknown or no value for it.
        BundleError: a bundle is not whole.
    """
    given = ray_args(args)
    try:
        token = Path(given.token_file).read_text("utf-8").strip() if given.token_file else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the token in {given.token_file}: {error}.") from None
    return application(given, token)


def application(given: RayArgs, token: str | None) -> serve.Application:
    """The application, ready to run.

    Raises:
        InputError: an option is none, or a name is none for a model.
        BundleError: a bundle is not whole here, where it is asked for.
    """
    options = given.options
    model_names(given.bundles)
    for bundle in given.bundles:
        read_bundle(bundle_folder(bundle))
    scaling = {
        "min_replicas": given.min_replicas,
        "max_replicas": given.max_replicas,
        "target_ongoing_requests": given.target_ongoing_requests,
    }
    deployment: Any = serve.deployment(
        serve.ingress(_asgi)(Replica),
        name="sam-serve",
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": given.num_cpus, "num_gpus": given.num_gpus},
        # The handler's own queue is full first, and says so in the protocol's form.
        max_ongoing_requests=2 * options.queue,
        max_queued_requests=options.queue,
        graceful_shutdown_timeout_s=options.timeout_s,
        max_constructor_retry_count=_STARTS,
        logging_config={"enable_access_log": False},  # the handler's log tells of requests
    )
    found: serve.Application = deployment.bind(given.bundles, options, token, given.log_level)
    return found
