"""Connections of servers in tests, none of which stays open."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def closed_after(
    handle: Handler, handling: "set[asyncio.Task[None]] | None" = None
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """Return a callback for `start_server` that closes each connection when `handle` has ended.

    That is also so if the event loop ends before the first step of `handle`. Otherwise the connection would be found
    open by a later test, which would fail. `handling` gets the tasks.
    """
    tasks = set() if handling is None else handling

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handle(reader, writer))
        tasks.add(task)

        def close(_: "asyncio.Task[None]") -> None:
            tasks.discard(task)
            if task.cancelled():
                writer.transport.abort()
            else:
                writer.close()

        task.add_done_callback(close)

    return accept
