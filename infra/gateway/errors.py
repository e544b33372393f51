"""Errors that the gateway responds with instead of a result.

    GatewayError                    status, text
    ├── MalformedRequest      400   the request does not have the form of the protocol
    ├── CommandRejected       400   the command is not served, or not with this token
    ├── Unauthorized          401
    ├── MethodNotAllowed      405   the HTTP method
    ├── RequestTooLarge       413
    ├── CodedRequest          415   the body is compressed
    ├── BatchTooLong          400   a batch has too many commands
    ├── ResponseTooLarge      400   the replies exceed the limit
    └── RedisUnavailable      503   Redis did not reply
        ├── NotSent                 nothing was sent: the command has not run
        └── OutcomeUnknown          it was sent and no reply came: it may have run

The response body is `{"error": text}`; a text starts with an upper-case code, as in Redis.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of the gateway's errors; `status` is the HTTP status code."""

    status = 500

    @property
    def text(self) -> str:
        return str(self)


class MalformedRequest(GatewayError):
    """The request does not have the form of the protocol."""

    status = 400


class CommandRejected(GatewayError):
    """The command is not served, or not with this token."""

    status = 400


class Unauthorized(GatewayError):
    """The token is missing or wrong."""

    status = 401


class MethodNotAllowed(GatewayError):
    """The HTTP method is not served, or not for this path."""

    status = 405


class RequestTooLarge(GatewayError):
    """The request body exceeds the limit."""

    status = 413


class CodedRequest(GatewayError):
    """The body is compressed, or has another content coding."""

    status = 415


class BatchTooLong(GatewayError):
    """The batch has more commands than a request may have. None of them has run."""

    status = 400


class ResponseTooLarge(GatewayError):
    """The replies to the commands of a request exceed the limit. Upstash answers this as an error of the command."""

    status = 400


class RedisUnavailable(GatewayError):
    """Redis did not reply."""

    status = 503


class NotSent(RedisUnavailable):
    """Safe to repeat: no byte of the command left the gateway."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; the command was not sent")


class OutcomeUnknown(RedisUnavailable):
    """The command was sent, so the gateway never repeats it. `replies`: those received before the connection broke."""

    def __init__(self, text: str, replies: list[object]) -> None:
        super().__init__(text)
        self.replies = replies
