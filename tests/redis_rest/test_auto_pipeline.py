"""Commands over REST that have to wait go together, and what goes wrong with one is no other's business."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeAlias

import pytest

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.redis import Reply
from infra.redis_rest.auto_pipeline import BATCH, AutoPipeline, Command
from infra.redis_rest.client import PARALLEL, SILENCE_S, RedisRest
from infra.settings import RedisRestSettings
from tests.worker.leaping import LeapingLoop

Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


class Server:
    """Answers a command with its last argument and how many requests came before, once `open` is set.

    BAD is refused, AWAY gets no answer, ODD is met by something that nobody expects.
    """

    def __init__(self) -> None:
        self.requests: list[Sequence[Command]] = []
        self.open = asyncio.Event()

    async def answer(self, commands: Sequence[Command]) -> list[Reply]:
        number = len(self.requests)
        self.requests.append(commands)
        await self.open.wait()
        if any(command[0] == "BAD" for command in commands):
            raise StoreRejected("ERR unknown command")
        if any(command[0] == "AWAY" for command in commands):
            raise StoreUnavailable("no answer")
        if any(command[0] == "ODD" for command in commands):
            raise RuntimeError("odd")
        return [f"{command[-1]} {number}" for command in commands]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs what is about deadlines where time passes only while everybody waits: a slow machine is late for nothing."""
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        yield runner.run


def one_at_a_time(server: Server, timeout_s: float = 10) -> AutoPipeline:
    return AutoPipeline(asyncio.Semaphore(1), server.answer, timeout_s)


def asked(pipeline: AutoPipeline, *commands: Command) -> list["asyncio.Task[Reply]"]:
    return [asyncio.create_task(pipeline.ask(command)) for command in commands]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_waits_goes_together_and_the_same_once(server: Server) -> None:
    pipeline = one_at_a_time(server)
    first = asked(pipeline, ("GET", "a"))
    await turns()
    later = asked(pipeline, ("GET", "a"), ("GET", "b"), ("GET", "a"), ("GET", "b"), ("GET", "c"))
    await turns()
    server.open.set()
    assert await asyncio.gather(*first) == ["a 0"]
    assert await asyncio.gather(*later) == ["a 1", "b 1", "a 1", "b 1", "c 1"], "no answer is older than its question"
    assert server.requests == [[("GET", "a")], [("GET", "a"), ("GET", "b"), ("GET", "c")]]


async def test_a_request_holds_a_bounded_number(server: Server) -> None:
    pipeline = one_at_a_time(server)
    server.open.set()
    commands: list[Command] = [("GET", str(number)) for number in range(3 * BATCH + 1)]
    answers = await asyncio.gather(*asked(pipeline, *commands))
    assert [str(answer).split()[0] for answer in answers] == [command[-1] for command in commands]
    assert max(map(len, server.requests)) <= BATCH


async def test_one_that_is_refused_takes_no_other_with_it(server: Server) -> None:
    pipeline = one_at_a_time(server)
    first = asked(pipeline, ("GET", "a"))
    await turns()
    later = asked(pipeline, ("GET", "b"), ("BAD", "c"), ("GET", "d"), ("AWAY", "e"))
    await turns()
    server.open.set()
    await asyncio.gather(*first)
    good, bad, other, away = await asyncio.gather(*later, return_exceptions=True)
    assert (good, other) == ("b 2", "d 4")
    assert isinstance(bad, StoreRejected)
    assert isinstance(away, StoreUnavailable)


async def test_an_outage_is_said_to_all(server: Server) -> None:
    pipeline = one_at_a_time(server)
    first = asked(pipeline, ("GET", "a"))
    await turns()
    later = asked(pipeline, ("AWAY", "b"), ("GET", "c"))
    await turns()
    server.open.set()
    await asyncio.gather(*first)
    found = await asyncio.gather(*later, return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 2
    assert await pipeline.ask(("GET", "c")) == "c 2"


async def test_who_leaves_takes_no_other_along(server: Server) -> None:
    pipeline = one_at_a_time(server)
    leaving, staying = asked(pipeline, ("GET", "a"), ("GET", "a"))
    await turns()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    server.open.set()
    assert await staying == "a 0"


@pytest.mark.parametrize("timeout_s", [0.1, 10])
def test_who_leaves_last_leaves_no_request_behind(run: Run, timeout_s: float) -> None:
    """Neither after its deadline nor when it is cancelled: a process that is frozen next would keep it open."""
    ended: list[Command] = []

    async def held(commands: Sequence[Command]) -> list[Reply]:
        try:
            await asyncio.Event().wait()
        finally:
            await turns()  # as the end of a connection with TLS takes some
            ended.extend(commands)
        return []

    async def test() -> None:
        pipeline = AutoPipeline(asyncio.Semaphore(1), held, timeout_s)
        leaving = asked(pipeline, ("GET", "a"), ("GET", "a"))
        await turns()
        leaving += asked(pipeline, ("GET", "b"))
        await asyncio.sleep(1)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert ended == [("GET", "a")], "nobody waits for the other any more"
        await turns()
        assert len(asyncio.all_tasks()) == 1

    run(test())


async def test_who_leaves_does_not_end_what_goes_together(server: Server) -> None:
    pipeline = one_at_a_time(server)
    first = asked(pipeline, ("GET", "a"))
    await turns()
    leaving, staying = asked(pipeline, ("GET", "b"), ("GET", "c"))
    await turns()
    server.open.set()
    server.open.clear()
    await asyncio.gather(*first)
    await turns()
    assert server.requests[1:] == [[("GET", "b"), ("GET", "c")]]
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    server.open.set()
    assert await staying == "c 1"


def test_a_deadline_holds_also_for_those_that_wait(server: Server, run: Run) -> None:
    async def test() -> None:
        pipeline = one_at_a_time(server, timeout_s=0.05)
        first = asked(pipeline, ("GET", "a"))
        await turns()
        found = await asyncio.gather(*first, *asked(pipeline, ("GET", "b")), return_exceptions=True)
        assert [type(each) for each in found] == [StoreUnavailable] * 2
        await asyncio.sleep(0.05)
        server.open.set()
        assert str(await pipeline.ask(("GET", "c"))).startswith("c ")
        sent = [command for request in server.requests for command in request]
        assert ("GET", "c") in sent
        assert ("GET", "b") not in sent, "nobody waits for it any more"
        await pipeline.close()

    run(test())


async def test_a_crowd_on_a_real_gateway(rest_settings: RedisRestSettings) -> None:
    redis = RedisRest(rest_settings)
    names = [str(number) for number in range(10 * PARALLEL)]
    await asyncio.gather(*(redis.command("SET", f"k{name}", name) for name in names))
    reads = [redis.command("GET", f"k{name}") for name in names]
    wrong = [redis.command("LLEN", f"k{name}") for name in names[:5]]
    answers = await asyncio.gather(*reads, *wrong, return_exceptions=True)
    assert answers[: len(names)] == names
    assert all(isinstance(answer, StoreRejected) and "WRONGTYPE" in str(answer) for answer in answers[len(names) :])
    await redis.command("DEL", *(f"k{name}" for name in names))
    await redis.close()


async def test_a_subscription_that_is_not_answered_is_given_up_in_time() -> None:
    """Within the deadline of a call, not after the silence that an answered one may keep."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        redis = RedisRest(RedisRestSettings(f"http://127.0.0.1:{port}", "t", timeout_s=0.2))
        async with asyncio.timeout(SILENCE_S / 2):
            with pytest.raises(StoreUnavailable, match=r"within 0\.2 s"):
                async with redis.subscribe("c"):
                    pass
        await redis.close()


async def test_what_nobody_expects_is_said_at_once(server: Server) -> None:
    server.open.set()
    with pytest.raises(RuntimeError, match="odd"):
        await one_at_a_time(server).ask(("ODD", "a"))


async def test_one_large_answer_in_a_request(server: Server) -> None:
    pipeline = one_at_a_time(server)
    first = asked(pipeline, ("GET", "a"))
    await turns()
    later = asked(pipeline, *(("XRANGE", str(number)) for number in range(3)), ("GET", "b"))
    await turns()
    server.open.set()
    await asyncio.gather(*first, *later)
    assert server.requests[1:] == [[("XRANGE", "0")], [("XRANGE", "1")], [("XRANGE", "2"), ("GET", "b")]]


async def test_each_goes_by_itself_while_a_request_is_free(server: Server) -> None:
    pipeline = AutoPipeline(asyncio.Semaphore(3), server.answer, 10)
    server.open.set()
    await asyncio.gather(*asked(pipeline, ("GET", "a"), ("GET", "b")))
    assert server.requests == [[("GET", "a")], [("GET", "b")]]


def test_who_joins_has_its_own_time(server: Server, run: Run) -> None:
    async def test() -> None:
        pipeline = one_at_a_time(server, timeout_s=0.4)
        first = asked(pipeline, ("GET", "a"))
        await turns()
        old = asked(pipeline, ("GET", "b"))
        await asyncio.sleep(0.3)
        young = asked(pipeline, ("GET", "b"))
        late = await asyncio.gather(*first, *old, return_exceptions=True)
        assert [type(each) for each in late] == [StoreUnavailable] * 2
        server.open.set()
        assert await young[0] == "b 1"

    run(test())


async def test_closing_leaves_nobody_waiting(server: Server) -> None:
    pipeline = one_at_a_time(server)
    waiting = asked(pipeline, ("GET", "a"))
    await turns()
    waiting += asked(pipeline, ("GET", "b"))
    await turns()
    await pipeline.close()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 2
