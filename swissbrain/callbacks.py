"""Calls that a client makes while it works."""

from collections.abc import Callable

from swissbrain.errors import ClientError

Notify = Callable[[str], None]
OnBytes = Callable[[int], None]

MAX_READ_BYTES = 64 * 1024 * 1024
"""Most bytes of a content that is read into memory, unless the caller allows more."""


def ignore(_: object) -> None:
    """Do nothing."""


def at_most(max_bytes: int, name: str, hint: str = "") -> OnBytes:
    """Return a callback that ends the transfer of a content with more bytes: it raises ClientError with the hint."""

    def check(size_bytes: int) -> None:
        if size_bytes > max_bytes:
            raise ClientError(f"'{name}' has more than {max_bytes:,} bytes{hint}")

    return check
