"""Session with a program in the sandbox: requests to its stdin, replies from its stdout, one at a time."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from infra.contract.errors import SessionLost
from infra.local_executor.exchange import ErrorTail, framed, read_reply, reason_of_end
from infra.local_executor.guarded_program import GuardedProgram, shield_until_done

if TYPE_CHECKING:  # a worker without a network for programs does not pay for the import
    from infra.egress.local import ProgramProxy


class LocalSession:
    """Implements the port `Session`. The program is killed `timeout_s` after its start."""

    def __init__(
        self, program: GuardedProgram, proxy: "ProgramProxy | None", timeout_s: float, max_reply_bytes: int
    ) -> None:
        self._program = program
        self._proxy = proxy
        self._timeout_s = timeout_s
        self._max_reply_bytes = max_reply_bytes
        self._errors = ErrorTail()
        loop = asyncio.get_running_loop()
        self._life: asyncio.Future[bool] = loop.create_future()
        self._reading: asyncio.Future[None] = loop.create_future()
        self._closed = False

    @property
    def errors(self) -> str:
        """Last part of what the program has written to stderr."""
        return self._errors.text

    async def begin(self) -> None:
        """Connect the pipes, and wait until the program has been started, or could not be."""
        await shield_until_done(self._program.connect())
        self._reading = asyncio.ensure_future(self._errors.read(self._program.stderr))
        await self._program.wait_for_start()
        self._life = asyncio.ensure_future(self._program.wait(self._timeout_s))
        if not self._program.started:
            await self._reading

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """See the port."""
        try:
            if self._closed:
                raise SessionLost("it was closed")
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request)
        except (asyncio.IncompleteReadError, OSError) as exc:
            # TimeoutError is an OSError.
            late = isinstance(exc, TimeoutError)
            reason = f"it did not answer within {timeout_s:g} s" if late else await self._reason_of_end()
            await self.close()
            raise SessionLost(reason) from exc
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See the port."""
        if not self._closed:
            self._closed = True
            await shield_until_done(self._close())

    async def _close(self) -> None:
        await self._program.kill()
        self._program.close()
        if self._proxy:
            await self._proxy.close()
        for task in (self._life, self._reading):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _exchange(self, request: bytes) -> bytes:
        self._program.write(framed(request))
        return await read_reply(self._program.stdout, self._max_reply_bytes)

    async def _reason_of_end(self) -> str:
        """Return why the program has ended, or is ending: it has closed its stdout."""
        with suppress(TimeoutError):
            # A program that closes its stdout and runs on is killed by the caller.
            async with asyncio.timeout(1):
                if await asyncio.shield(self._life):
                    return reason_of_end(None, "", self._timeout_s)
                await asyncio.shield(self._reading)
        return reason_of_end(self._program.exit_code, self.errors)
