"""The stack for code that is not async: it lives in a thread of its own, as long as the `with` block."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

from infra.devstack.stack import DevStack


class BackgroundStack:
    """`with BackgroundStack(DevStack(folder)) as stack:` raises StackError if it does not start.

    An interrupt while it stops kills everything at once. The children die with the thread, also if that is cut short.
    """

    def __init__(self, stack: DevStack) -> None:
        self.stack = stack
        self._thread = threading.Thread(target=self._run, name="dev stack", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = threading.Event()
        self._end = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> DevStack:
        self._thread.start()
        try:
            self._up.wait()
        except BaseException:
            self._stop()
            raise
        if self._failure:
            self._thread.join()
            raise self._failure
        return self.stack

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._end.set()
        if self._loop and self._task:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._task.cancel)
        try:
            self._thread.join()
        except BaseException:
            self.stack.kill()
            self._thread.join()
            raise

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except asyncio.CancelledError:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = exc
        finally:
            self._up.set()

    async def _live(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._end.is_set():
            return
        async with self.stack:
            self._up.set()
            await asyncio.Event().wait()
