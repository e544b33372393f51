"""A client that is cut off because it reads too slowly, and comes back with the last id that it has."""

import asyncio

import httpx
from httpx_sse import ServerSentEvent

from edge_api.settings import ApiSettings
from infra.settings import RedisRestSettings
from tests.edge.stack import Edge, Files, SimulatedWorker, client, create, note, numbers, serve, stream
from tests.support.waiting import until

TEXT = "x" * 60_000
MANY = 200
"""So many such events are more than what the kernel keeps of a connection that nobody reads."""
SETTINGS = ApiSettings(stream_stall_s=0.3)


class Reader:
    """A client of one run's stream, with all that it has ever got."""

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
        """Read one event, and after the pause all that there is; of an event that was cut in two it has nothing.

        Returns at the end of the connection, however that ends.
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
        """As often as it takes: a busy machine may make any client a slow one."""
        while not self.seen or self.seen[-1].event != "end":
            await self.read()


async def is_cut_off(edge: Edge) -> None:
    async def nobody() -> bool:
        return edge.streams == 0

    await until(nobody, "the client that does not read is cut off")


async def test_a_slow_client_that_was_cut_off_comes_back_and_gets_every_event_once(
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
