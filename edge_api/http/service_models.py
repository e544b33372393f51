"""Responses about the service itself."""

import msgspec

VERSION = "0.1.0"
"""Release of the API."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """State of the process: up, or ready; and its release."""

    status: str
    version: str = VERSION


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """User and scopes of the token that came with the request."""

    user: str
    scopes: list[str]
