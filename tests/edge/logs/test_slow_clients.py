"""A client that is disconnected because it reads too slowly, and reconnects with its last id."""

import asyncio

import httpx
from httpx_sse import ServerSentEvent

from edge_api.settings import ApiSettings
from infra.settings import RedisRestSettings
from tests.edge.stack import Edge, Files, SimulatedWorker, client, create, note, numbers, serve, stream
from tests.support.waiting import until

TEXT = "x" * 60_000
EVENTS_BEYOND_BUFFERS = 200
"""Number of events that exceeds the kernel's buffers of a connection that is not read."""
SETTINGS = ApiSettings(stream_stall_s=0.3)


class Reader:
    """Client of one run's stream that keeps all events that it has received."""

    def __init__(self, http: httpx.AsyncClient, run_id: str) -> None:
        self._http = http
        self._run_id = run_id
        self.seen: list[ServerSentEvent] = []

    @property
    def last(self) -> int:
        return int(numbers(self.seen)[-1]) if self.seen else 0

    async def reached(self, seq: int) -> None:
        async def has() -> bool:
            return self.last >= seq

        await until(has, f"the client has event {seq}", timeout_s=60)

    async def read(self, pause: asyncio.Event | None = None) -> None:
        """Read one event, and after the pause all others. An event that was cut in two is not received.

        Return when the connection has ended, with or without an error.
        """
        try:
            async with stream(self._http, self._run_id, after=self.last or None) as events:
                async for event in events:
                    self.seen.append(event)
                    if pause:
                        await pause.wait()
        except httpx.TransportError:
            return

    async def to_the_end(self) -> None:
        """Read until the end, in several connections if need be: on a busy machine any client can be too slow."""
        while not self.seen or self.seen[-1].event != "end":
            await self.read()


async def is_disconnected(edge: Edge) -> None:
    async def no_stream() -> bool:
        return edge.streams == 0

    await until(no_stream, "the client that does not read is disconnected")


async def test_a_slow_client_that_was_disconnected_reconnects_and_gets_every_event_once(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with serve(rest_settings, Files(), SETTINGS) as edge, client(edge, "ada") as http:
        reader = Reader(http, await create(http))
        lease = await worker.claim()
        last_seq = 1

        async def log(count: int) -> None:
            nonlocal last_seq
            for _ in range(count):
                last_seq += 1
                await worker.emit(lease, note(last_seq, text=TEXT))

        for _ in range(2):
            pause, before = asyncio.Event(), reader.last
            reading = asyncio.create_task(reader.read(pause))
            await reader.reached(before + 1)
            await log(EVENTS_BEYOND_BUFFERS)
            await is_disconnected(edge)
            pause.set()
            await reading
            assert before < reader.last < last_seq
        reading = asyncio.create_task(reader.to_the_end())
        await reader.reached(last_seq)
        await log(10)
        await worker.finish(lease)
        await reading
        assert numbers(reader.seen) == list(range(1, last_seq + 2))
        assert [event.event for event in reader.seen if event.event != "message"] == ["end"]
