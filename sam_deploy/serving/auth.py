"""A bearer token, where the operator wants one."""

from __future__ import annotations

import hmac

from sam_deploy.serving.failures import Unauthorized


def check_token(token: str | None, authorization: bytes) -> None:
    """Hold an `Authorization` header against the server's token; None lets everybody in.

    Raises:
        Unauthorized: it is another, or none.
    """
    if token is None:
        return
    scheme, _, given = authorization.partition(b" ")
    right = hmac.compare_digest(given.strip(), token.encode())
    if scheme.lower() != b"bearer" or not right:
        raise Unauthorized("this server wants its bearer token: Authorization: Bearer ...")
