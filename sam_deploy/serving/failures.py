"""What a server answers when it cannot do what was asked, in the protocol's terms.

Codes as the Open Inference Protocol has them over REST and gRPC. All of them can be pickled: Ray
passes them between processes.
"""

from __future__ import annotations


class ServingError(Exception):
    """Base of all; one that is raised as such is a bug of ours."""

    http_status = 500
    grpc_code = "INTERNAL"


class BadRequest(ServingError):
    """The request cannot be served as it is."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class Unauthorized(ServingError):
    """The bearer token is missing or another."""

    http_status = 401
    grpc_code = "UNAUTHENTICATED"


class NotFound(ServingError):
    """There is no such model, version or path."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class TooLarge(ServingError):
    """The request, or an image in it, is above a limit."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class Unavailable(ServingError):
    """Not now: the queue is full, or the server is going. Try again after `retry_after_s`."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retry_after_s = 1


class DeadlineExceeded(ServingError):
    """It would have been answered later than the client wanted."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"
