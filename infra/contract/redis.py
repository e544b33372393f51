"""Port to Redis, over REST or TCP: a raw command, a pipeline, a script."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

Reply: TypeAlias = "str | int | list[Reply] | None"
"""Reply in its RESP2 shape, with text decoded as UTF-8."""

Argument: TypeAlias = str | int | float


class Script(msgspec.Struct, frozen=True):
    """Lua script ready to send. `sha1` is the digest of `text` by which Redis caches it.

    `keys` and `args` are the names in the script's header. `more_keys` and `more_args`: the script takes further
    values after the named ones.
    """

    name: str
    text: str
    sha1: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    more_keys: bool
    more_args: bool


class Redis(Protocol):
    """Redis connection, over REST or TCP.

    Every method raises StoreUnavailable if there was no reply in time (the command may have been executed), and
    StoreRejected if Redis replied with an error.
    """

    async def command(self, *args: Argument) -> Reply:
        """Run one command. Equal commands of concurrent callers may be sent once."""
        ...

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one round trip, not atomically. The first error is raised after all have run."""
        ...

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest; its text is sent only if the server does not have it."""
        ...
