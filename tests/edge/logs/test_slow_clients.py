"""A client that is disconnected because it reads too slowly, and reconnects with its last id."""

import asyncio

import httpx
from httpx_sse import ServerSentEvent

from edge_api.settings import ApiSettings
from infra.settings import RedisRestSettings
from tests.edge.stack import Edge, Files, SimulatedWorker, client, create, note, numbers, serve, stream
from tests.support.waiting import until

TEXT = "x" * 60_000
MANY = 200
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


async def is_cut_off(edge: Edge) -> None:
    async def nobody() -> bool:
        return edge.streams == 0

    await until(nobody, "the client that does not read is cut off")


async def test_a_slow_client_that_was_disconnected_reconnects_and_gets_every_event_once(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with serve(rest_settings, Files(), SETTINGS) as edge, client(edge, "ada") as http:
        reader = Reader(http, await create(http))
        lease = await worker.claim()
        made = 1

        async def log(count: int) -> None:
            nonlocal made
            for _ in range(count):
                made += 1
                await worker.emit(lease, note(made, text=TEXT))

        for _ in range(2):
            pause, before = asyncio.Event(), reader.last
            reading = asyncio.create_task(reader.read(pause))
            await reader.reached(before + 1)
            await log(MANY)
            await is_cut_off(edge)
            pause.set()
            await reading
            assert before < reader.last < made
        reading = asyncio.create_task(reader.to_the_end())
        await reader.reached(made)
        await log(10)
        await worker.finish(lease)
        await reading
        assert numbers(reader.seen) == list(range(1, made + 2))
        assert [event.event for event in reader.seen if event.event != "message"] == ["end"]
