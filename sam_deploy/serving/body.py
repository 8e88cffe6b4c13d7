"""A request's body, read and unpacked within a limit."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sam_deploy.serving.failures import BadRequest, TooLarge, Unavailable

Receive = Callable[[], Awaitable[Any]]
Headers = Mapping[bytes, bytes]
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_IN_LOOP_BYTES = 1 << 16  # smaller ones take less than a thread's turn
_DRAINED = 2  # times the limit: a client that is told so must first have sent, or it sees a reset


async def read_body(receive: Receive, headers: Headers, max_bytes: int) -> bytes:
    """The body, unpacked where it is compressed.

    Raises:
        TooLarge: it is above `max_bytes`, packed or unpacked.
        BadRequest: its compression is unknown, or damaged.
        Unavailable: the client went away.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Unavailable("the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size <= max_bytes:
            parts.append(part)
        if not message.get("more_body") or size > _DRAINED * max_bytes:
            break
    if size > max_bytes:
        raise TooLarge(f"the request has more than {max_bytes} bytes, which is the limit")
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW:
        raise BadRequest(f"unknown Content-Encoding {encoding[:40]!r}; gzip and deflate are known")
    if len(body) <= _IN_LOOP_BYTES and max_bytes <= _IN_LOOP_BYTES:
        return _unpacked(body, encoding, max_bytes)
    return await asyncio.to_thread(_unpacked, body, encoding, max_bytes)


def packed(body: bytes, accepted: bytes) -> tuple[bytes, str | None]:
    """The body in the one compression that the client asks for; not in one of several that it would
    take: tensors hardly get smaller, and it takes longer than sending them.
    """
    encoding = accepted.decode("latin-1").strip().lower()
    if encoding not in _WINDOW:
        return body, None
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW[encoding])
    return packer.compress(body) + packer.flush(), encoding


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(_WINDOW[encoding])
    try:
        found = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is no {encoding}: {error}") from None
    if len(found) > max_bytes:
        raise TooLarge(f"unpacked the request has more than {max_bytes} bytes, which is the limit")
    if not unpacker.eof:
        raise BadRequest(f"the body ends within its {encoding}")
    return found
