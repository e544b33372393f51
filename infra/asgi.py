"""ASGI helpers of the API and the gateway: read a bounded body, wait for the client's disconnect."""

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int, drain_bytes: int) -> bytes | None:
    """Return the request body, or None if it is larger than `limit_bytes`.

    `drain_bytes` (larger than `limit_bytes`): up to this total size an oversized body is still received and discarded.
    Raises ClientDisconnect if the client disconnects before the body is complete.
    """
    if _declared_size(scope) > drain_bytes:
        return None
    # An oversized body is drained, because closing a connection with unread bytes resets it, and the client would
    # never see the error response. Beyond `drain_bytes` the response is not worth the traffic.
    body = bytearray()
    size, more = 0, True
    while more and size <= drain_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= limit_bytes:
            body += chunk
        more = message.get("more_body", False)
    return bytes(body) if size <= limit_bytes else None


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; discard everything else that it sends."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _declared_size(scope: Scope) -> int:
    """Content-Length in bytes; 0 if it is absent or not a number."""
    text = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    # Twenty digits are more than any body has. int() raises ValueError for a text of several thousand digits.
    return int(text[:20]) if text.isdigit() else 0
