"""Calls that a client makes while it works."""

from collections.abc import Callable

Notify = Callable[[str], None]
OnBytes = Callable[[int], None]


def ignore(_: object) -> None:
    """Do nothing."""
