"""Both clients behind one interface, so that one test holds for both."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Self, TypeVar, cast

from swissbrain import AsyncClient, Client

T = TypeVar("T")
Connect = Callable[..., Client]


class BlockingAsyncClient:
    """AsyncClient in the event loop of another thread, with the interface of Client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = AsyncClient(*args, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._do(self._client.close())
            self._do(self._loop.shutdown_asyncgens())
            self._do(self._loop.shutdown_default_executor())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(100)

    def _items(self, made: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        async def following() -> tuple[T, ...]:
            async for item in made:
                return (item,)
            return ()

        try:
            while item := self._do(following()):
                yield item[0]
        finally:
            if not self._loop.is_closed():
                self._do(made.aclose())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @wraps(method)
        def blocking(*args: Any, **options: Any) -> Any:
            made = method(*args, **options)
            return self._do(made) if inspect.iscoroutine(made) else self._items(made)

        return blocking


CLIENTS: dict[str, Connect] = {"Client": Client, "AsyncClient": cast("Connect", BlockingAsyncClient)}
