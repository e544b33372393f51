"""What the gateway can answer instead of a result.

    GatewayError                    status, text
    ├── BadRequest            400   the request is not of the protocol's form
    ├── Refused               400   a command that is not served, or not with this token
    ├── Unauthorized          401
    ├── NotAllowed            405   the HTTP method
    ├── TooLarge              413
    └── RedisUnavailable      503   Redis did not answer
        ├── NotSent                 nothing was sent: the command certainly did not run
        └── OutcomeUnknown          it was sent and no answer came: it may have run

Every answer's body is `{"error": text}`; a text starts with an upper-case code, as in Redis.
"""

from __future__ import annotations


class GatewayError(Exception):
    status = 500

    @property
    def text(self) -> str:
        return str(self)


class BadRequest(GatewayError):
    status = 400


class Refused(GatewayError):
    status = 400


class Unauthorized(GatewayError):
    status = 401


class NotAllowed(GatewayError):
    status = 405


class TooLarge(GatewayError):
    status = 413


class RedisUnavailable(GatewayError):
    status = 503


class NotSent(RedisUnavailable):
    """Safe to repeat: no byte of the command left the gateway."""


class OutcomeUnknown(RedisUnavailable):
    """Never repeated by the gateway. `replies` holds the answers that came before the connection broke."""

    def __init__(self, text: str, replies: list[object]) -> None:
        super().__init__(text)
        self.replies = replies
