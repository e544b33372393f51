"""Development stack for code that is not async: runs the stack in a thread for the length of a `with` block."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

from infra.devstack.stack import DevStack


class BackgroundStack:
    """Context manager: `with BackgroundStack(DevStack(folder)) as stack:`. Raises StackError if the start fails.

    An interrupt during the stop kills all processes immediately. Processes also die with this thread.
    """

    def __init__(self, stack: DevStack) -> None:
        self.stack = stack
        self._thread = threading.Thread(target=self._run, name="dev stack", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._stop_requested = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> DevStack:
        self._thread.start()
        try:
            self._ready.wait()
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
        self._stop_requested.set()
        if self._loop and self._task:
            with suppress(RuntimeError):  # the loop is already closed
                self._loop.call_soon_threadsafe(self._task.cancel)
        try:
            self._thread.join()
        except BaseException:
            self.stack.kill()
            self._thread.join()
            raise

    def _run(self) -> None:
        try:
            asyncio.run(self._run_stack())
        except asyncio.CancelledError:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = exc
        finally:
            self._ready.set()

    async def _run_stack(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        # A stop that was requested before `_task` was set could not cancel it.
        if self._stop_requested.is_set():
            return
        async with self.stack:
            self._ready.set()
            await asyncio.Event().wait()
