"""Commands over REST that come together or have to wait share a request; an error of one does not affect the others."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeAlias

import pytest

from infra.contract.errors import ContractError, RepliesTooLong, StoreRejected, StoreUnavailable
from infra.contract.redis import Reply
from infra.redis_rest.auto_pipeline import MAX_BATCH, MAX_BATCH_CHARS, AutoPipeline, Command, deadline
from infra.redis_rest.client import MAX_REQUESTS, RedisRest
from infra.redis_rest.transport import MAX_SILENCE_S
from infra.settings import RedisRestSettings
from tests.worker.leaping import LeapingLoop

Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


class FakeServer:
    """Fake server. Its reply to a command is the last argument and the number of earlier requests, once `open` is set.

    It rejects the command BAD, is unavailable for AWAY, and raises an unexpected error for ODD.
    """

    def __init__(self) -> None:
        self.requests: list[Sequence[Command]] = []
        self.open = asyncio.Event()

    async def reply(self, commands: Sequence[Command]) -> "list[Reply | ContractError]":
        number = len(self.requests)
        self.requests.append(commands)
        await self.open.wait()
        if any(command[0] == "AWAY" for command in commands):
            raise StoreUnavailable("no answer")
        if any(command[0] == "ODD" for command in commands):
            raise RuntimeError("odd")
        unknown = StoreRejected("ERR unknown command")
        return [unknown if command[0] == "BAD" else f"{command[-1]} {number}" for command in commands]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def run() -> Iterator[Run]:
    """Runner whose clock advances only while all tasks wait, so that a slow machine misses no deadline."""
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        yield runner.run


def one_at_a_time(server: FakeServer) -> AutoPipeline:
    return AutoPipeline(asyncio.Semaphore(1), server.reply)


async def read(pipeline: AutoPipeline, command: Command, timeout_s: float = 10) -> Reply:
    async with deadline(timeout_s):
        return await pipeline.read(command)


def submitted(pipeline: AutoPipeline, *commands: Command, timeout_s: float = 10) -> list["asyncio.Task[Reply]"]:
    return [asyncio.create_task(read(pipeline, command, timeout_s)) for command in commands]


async def turns() -> None:
    """Let the event loop run what is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_waiting_commands_share_a_request_and_equal_ones_are_sent_once(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    first = submitted(pipeline, ("GET", "a"))
    await turns()
    later = submitted(pipeline, ("GET", "a"), ("GET", "b"), ("GET", "a"), ("GET", "b"), ("GET", "c"))
    await turns()
    server.open.set()
    assert await asyncio.gather(*first) == ["a 0"]
    assert await asyncio.gather(*later) == ["a 1", "b 1", "a 1", "b 1", "c 1"], "no reply is older than its call"
    assert server.requests == [[("GET", "a")], [("GET", "a"), ("GET", "b"), ("GET", "c")]]


async def test_a_request_carries_a_bounded_number_of_commands(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    server.open.set()
    commands: list[Command] = [("GET", str(number)) for number in range(3 * MAX_BATCH + 1)]
    answers = await asyncio.gather(*submitted(pipeline, *commands))
    assert [str(answer).split()[0] for answer in answers] == [command[-1] for command in commands]
    assert max(map(len, server.requests)) <= MAX_BATCH


async def test_a_rejected_command_does_not_affect_others_in_its_request(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    first = submitted(pipeline, ("GET", "a"))
    await turns()
    later = submitted(pipeline, ("GET", "b"), ("BAD", "c"), ("GET", "d"))
    await turns()
    server.open.set()
    await asyncio.gather(*first)
    good, bad, other = await asyncio.gather(*later, return_exceptions=True)
    assert (good, other) == ("b 1", "d 1")
    assert isinstance(bad, StoreRejected)
    assert len(server.requests) == 2, "nothing is sent again"


async def test_an_outage_fails_all_commands_of_the_request(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    first = submitted(pipeline, ("GET", "a"))
    await turns()
    later = submitted(pipeline, ("AWAY", "b"), ("GET", "c"))
    await turns()
    server.open.set()
    await asyncio.gather(*first)
    found = await asyncio.gather(*later, return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 2
    assert await pipeline.read(("GET", "c")) == "c 2"


async def test_a_cancelled_caller_does_not_affect_another_of_the_same_command(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    leaving, staying = submitted(pipeline, ("GET", "a"), ("GET", "a"))
    await turns()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    server.open.set()
    assert await staying == "a 0"


@pytest.mark.parametrize("timeout_s", [0.1, 10])
def test_the_request_has_ended_when_its_last_caller_leaves(run: Run, timeout_s: float) -> None:
    """After a deadline (0.1 s) and after a cancellation: a process that is frozen next would keep the request open."""
    ended: list[Command] = []

    async def hang(commands: Sequence[Command]) -> "list[Reply | ContractError]":
        try:
            await asyncio.Event().wait()
        finally:
            await turns()  # closing a TLS connection takes several turns, too
            ended.extend(commands)
        return []

    async def test() -> None:
        pipeline = AutoPipeline(asyncio.Semaphore(1), hang)
        leaving = submitted(pipeline, ("GET", "a"), ("GET", "a"), timeout_s=timeout_s)
        await turns()
        leaving += submitted(pipeline, ("GET", "b"), timeout_s=timeout_s)
        await asyncio.sleep(1)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert ended == [("GET", "a")], "the other command has no caller any more"
        await turns()
        assert len(asyncio.all_tasks()) == 1

    run(test())


async def test_a_cancelled_caller_does_not_cancel_the_shared_request(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    first = submitted(pipeline, ("GET", "a"))
    await turns()
    leaving, staying = submitted(pipeline, ("GET", "b"), ("GET", "c"))
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


def test_the_deadline_includes_the_wait_for_a_request(server: FakeServer, run: Run) -> None:
    async def test() -> None:
        pipeline = one_at_a_time(server)
        first = submitted(pipeline, ("GET", "a"), timeout_s=0.05)
        await turns()
        later = submitted(pipeline, ("GET", "b"), timeout_s=0.05)
        found = await asyncio.gather(*first, *later, return_exceptions=True)
        assert [type(each) for each in found] == [StoreUnavailable] * 2
        await asyncio.sleep(0.05)
        server.open.set()
        assert str(await pipeline.read(("GET", "c"))).startswith("c ")
        sent = [command for request in server.requests for command in request]
        assert ("GET", "c") in sent
        assert ("GET", "b") not in sent, "the command has no caller any more"
        await pipeline.close()

    run(test())


async def test_many_concurrent_commands_get_their_replies_from_a_gateway(rest_settings: RedisRestSettings) -> None:
    redis = RedisRest(rest_settings)
    names = [str(number) for number in range(10 * MAX_REQUESTS)]
    await asyncio.gather(*(redis.command("SET", f"k{name}", name) for name in names))
    reads = [redis.command("GET", f"k{name}") for name in names]
    wrong = [redis.command("LLEN", f"k{name}") for name in names[:5]]
    answers = await asyncio.gather(*reads, *wrong, return_exceptions=True)
    assert answers[: len(names)] == names
    assert all(isinstance(answer, StoreRejected) and "WRONGTYPE" in str(answer) for answer in answers[len(names) :])
    await redis.command("DEL", *(f"k{name}" for name in names))
    await redis.close()


async def test_an_unanswered_subscription_fails_within_the_deadline() -> None:
    """The deadline of a call applies, not the longer timeout between two messages."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        redis = RedisRest(RedisRestSettings(f"http://127.0.0.1:{port}", "t", timeout_s=0.2))
        async with asyncio.timeout(MAX_SILENCE_S / 2):
            with pytest.raises(StoreUnavailable, match=r"within 0\.2 s"):
                async with redis.subscribe("c"):
                    pass
        await redis.close()


async def test_an_unexpected_error_reaches_the_caller(server: FakeServer) -> None:
    server.open.set()
    with pytest.raises(RuntimeError, match="odd"):
        await one_at_a_time(server).read(("ODD", "a"))


async def test_a_request_carries_at_most_one_command_with_a_large_reply(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    first = submitted(pipeline, ("GET", "a"))
    await turns()
    later = submitted(pipeline, *(("XRANGE", str(number)) for number in range(3)), ("GET", "b"))
    await turns()
    server.open.set()
    await asyncio.gather(*first, *later)
    assert server.requests[1:] == [[("XRANGE", "0")], [("XRANGE", "1")], [("XRANGE", "2"), ("GET", "b")]]


async def test_commands_of_one_turn_share_a_request_and_later_ones_do_not_wait_for_it(server: FakeServer) -> None:
    pipeline = AutoPipeline(asyncio.Semaphore(3), server.reply)
    tasks = submitted(pipeline, ("GET", "a"), ("GET", "b"))
    await turns()
    tasks += submitted(pipeline, ("GET", "c"))
    await turns()
    assert server.requests == [[("GET", "a"), ("GET", "b")], [("GET", "c")]]
    server.open.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("as_a_whole", [True, False])
async def test_commands_with_replies_too_long_for_one_answer_are_sent_again_alone(as_a_whole: bool) -> None:
    requests: list[int] = []

    async def reply(commands: Sequence[Command]) -> "list[Reply | ContractError]":
        requests.append(len(commands))
        error = RepliesTooLong("ERR max request size exceeded")
        if len(commands) > 1 and as_a_whole:
            raise error
        fit = [f"{command[-1]}" for command in commands[:1]]
        return [error] if commands[0][-1] == "huge" else [*fit, *[error] * (len(commands) - 1)]

    pipeline = AutoPipeline(asyncio.Semaphore(1), reply)
    found = await asyncio.gather(
        *submitted(pipeline, ("GET", "a"), ("GET", "b"), ("GET", "huge")), return_exceptions=True
    )
    assert found[:2] == ["a", "b"]
    assert isinstance(found[2], RepliesTooLong)
    assert requests == ([3, 1, 1, 1] if as_a_whole else [3, 1, 1])


async def test_replies_that_came_do_not_wait_for_commands_that_are_sent_again(server: FakeServer) -> None:
    async def reply(commands: Sequence[Command]) -> "list[Reply | ContractError]":
        if len(commands) == 1:
            return await server.reply(commands)
        return ["a", RepliesTooLong("ERR max request size exceeded"), "c"]

    pipeline = AutoPipeline(asyncio.Semaphore(1), reply)
    first, away, last = submitted(pipeline, ("GET", "a"), ("AWAY", "b"), ("GET", "c"))
    assert [await first, await last] == ["a", "c"]
    server.open.set()
    with pytest.raises(StoreUnavailable):
        await away


async def test_a_write_is_sent_once_for_each_call(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    server.open.set()
    await asyncio.gather(*(pipeline.write(("EVALSHA", "a")) for _ in range(3)))
    assert server.requests == [[("EVALSHA", "a")] * 3]


async def test_a_request_of_several_commands_has_a_bounded_size(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    server.open.set()
    large = "x" * (MAX_BATCH_CHARS // 2)
    commands: list[Command] = [("SET", "k", large, number) for number in range(4)]
    commands.append(("SET", "k", 4 * large, 4))
    await asyncio.gather(*submitted(pipeline, *commands))
    assert [[command[-1] for command in request] for request in server.requests] == [[0], [1], [2], [3], [4]]


def test_a_caller_that_joins_a_waiting_command_has_its_own_deadline(server: FakeServer, run: Run) -> None:
    async def test() -> None:
        pipeline = one_at_a_time(server)
        first = submitted(pipeline, ("GET", "a"), timeout_s=0.4)
        await turns()
        old = submitted(pipeline, ("GET", "b"), timeout_s=0.4)
        await asyncio.sleep(0.3)
        young = submitted(pipeline, ("GET", "b"), timeout_s=0.4)
        late = await asyncio.gather(*first, *old, return_exceptions=True)
        assert [type(each) for each in late] == [StoreUnavailable] * 2
        server.open.set()
        assert await young[0] == "b 1"

    run(test())


async def test_close_fails_all_waiting_callers(server: FakeServer) -> None:
    pipeline = one_at_a_time(server)
    waiting = submitted(pipeline, ("GET", "a"))
    await turns()
    waiting += submitted(pipeline, ("GET", "b"))
    await turns()
    await pipeline.close()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 2
