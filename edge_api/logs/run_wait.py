"""Waiting for a run on behalf of a client, by the run's channel: without a command while nothing happens.

How no end is missed: subscribe, wait until the subscription is confirmed, and only then read the record. From the
confirmation on, every published event arrives; what happened before is in the record. If the subscription ends, the
same begins again after a pause.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_api.logs.backoff import RETRY_LAST_S, backoff_s
from edge_api.logs.fanout import Fanout, Listener
from edge_api.logs.longpoll import within_invocation
from edge_api.logs.reader import QUIET_S
from edge_api.logs.sse import LogStreams
from edge_api.logs.stored import LAG_TRIES
from infra.contract.errors import StoreUnavailable
from infra.contract.events import RunWaiting
from infra.contract.log import TERMINAL_EVENT
from infra.contract.redis_store.reader import RunReader
from infra.contract.runs import RunRecord
from infra.contract.states import TERMINAL, Status
from infra.logging import log

Read = Callable[[], Awaitable[RunRecord]]
Respond = Callable[[RunRecord], Awaitable[Response]]

_SETTLING_EVENTS = frozenset({TERMINAL_EVENT, RunWaiting.TYPE})


def is_settled(run: RunRecord) -> bool:
    """Return whether a run has ended or waits for a person."""
    return run.status in TERMINAL or run.status is Status.WAITING


class RunWaits:
    """Waits for runs. All clients that wait for one run, or follow its log, share one subscription.

    A waiting client counts as an open stream: it holds a connection, and a shutdown answers it immediately.
    """

    def __init__(self, store: RunReader, fanout: Fanout, streams: LogStreams) -> None:
        self._store = store
        self._fanout = fanout
        self._streams = streams

    def response(self, run_id: str, read: Read, respond: Respond, wait_s: float) -> ASGIApp:
        """Return the response with the run once it is settled, or as it is after `wait_s`."""
        wait = _Wait(run_id, self._store.keys.channel(run_id), self._fanout, read)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await self._streams.hold(wait.settle(), receive, within_invocation(scope, wait_s))
            if wait.failure is not None:
                raise wait.failure
            response = await respond(wait.settled or await read())
            await response(scope, receive, send)

        return answer


class _Wait:
    """Wait of one client. `settled` is the record of the settled run, `failure` the error that ended the wait."""

    def __init__(self, run_id: str, channel: str, fanout: Fanout, read: Read) -> None:
        self._run_id = run_id
        self._channel = channel
        self._fanout = fanout
        self._read = read
        self.settled: RunRecord | None = None
        self.failure: Exception | None = None

    async def settle(self) -> None:
        """Return once the run is settled, or cannot be read."""
        try:
            failures = 0
            while self.settled is None:
                begun_s = time.monotonic()
                try:
                    with self._fanout.join(self._channel) as listener:
                        await self._follow(listener)
                except StoreUnavailable as exc:
                    log("wait.retry", run_id=self._run_id, reason=str(exc))
                if self.settled is None:
                    failures = 0 if time.monotonic() - begun_s > RETRY_LAST_S else failures + 1
                    await asyncio.sleep(backoff_s(failures))
        except Exception as exc:  # noqa: BLE001 the response raises it
            self.failure = exc

    async def _follow(self, listener: Listener) -> None:
        """Return once the run is settled, or the subscription has ended."""
        await listener.confirmed()
        await self._look(0)
        # An event published just before the confirmation may have been missing on the replica that was read.
        if self.settled is None and not await listener.wait(QUIET_S):
            await self._look(0)
        while self.settled is None and (batch := await listener.next_batch()) is not None:
            # A damaged message can mean that the run has been deleted.
            if batch.damaged or any(event.type in _SETTLING_EVENTS for event in batch):
                await self._look(batch[-1].seq if batch else 0)

    async def _look(self, seq: int) -> None:
        """Read the record, again if it is older than event `seq`: a replica can lag behind the publisher."""
        for attempt in range(LAG_TRIES):
            run = await self._read()
            if run.seq >= seq:
                self.settled = run if is_settled(run) else None
                return
            await asyncio.sleep(backoff_s(attempt))
        raise StoreUnavailable("the record of the run lags behind its log")
