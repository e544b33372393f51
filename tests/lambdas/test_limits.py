"""Lambda's limits: a followed log loses nothing at a deadline or a size limit, and leaves nothing open."""

import asyncio
import json
import time
from typing import Any

import pytest

from infra.contract.runs import RunSpec
from tests.edge.stack import TOKENS, SimulatedWorker, note
from tests.lambdas.conftest import POLLING, STREAMING, Start
from tests.lambdas.environment import Environment
from tests.lambdas.events import function_url_event
from tests.lambdas.runtime_api import MAX_BYTES
from tests.support.waiting import until

RUN = "run_1"
FUNCTIONS = [pytest.param(STREAMING, "stream", id="streaming"), pytest.param(POLLING, "longpoll", id="polling")]


def poll(after: int = 0) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {TOKENS['ada']}", "last-event-id": str(after)}
    return function_url_event("GET", f"/agent/logs/{RUN}/stream", headers)


async def create(worker: SimulatedWorker) -> None:
    await worker.store.create(RUN, "ada", RunSpec(prompt="x"), start=True, digest="d")


async def ask(function: Environment, event: object, timeout_s: float = 60) -> str:
    """Return the text of a response, which has to be complete and in time."""
    call = await function.invoke(event, timeout_s)
    outcome = await call.ended()
    assert outcome == "answered", function.log()
    if call.streamed:
        return (await call.complete())[1].decode()
    answer = await call.head()
    assert answer["isBase64Encoded"] is False
    return str(answer["body"])


@pytest.mark.parametrize(("command", "mode"), FUNCTIONS)
async def test_a_response_ends_in_order_before_the_deadline_and_the_next_one_continues(
    start: Start, worker: SimulatedWorker, command: list[str], mode: str
) -> None:
    await create(worker)
    async with start(command, EDGE_LOG_MODE=mode) as function:
        assert await (await function.invoke({})).ended() == "answered"
        empty = await ask(function, poll(), timeout_s=4)
        assert [line for line in empty.splitlines() if line] in ([["retry: 1000"], ["retry: 1000", ": ping"]])
        lease = await worker.claim()
        await worker.emit(lease, note(2))
        begun = await ask(function, poll(), timeout_s=4)
        assert [line for line in begun.splitlines() if line.startswith("id: ")] == ["id: 1", "id: 2"]
        await worker.finish(lease)
        rest = await ask(function, poll(after=2))
        assert [line for line in rest.splitlines() if line.startswith("id: ")] == ["id: 3"]
        assert 'event: end\ndata: {"status":"succeeded","last_seq":3}\n' in rest
        assert function.starts == 1


async def test_a_stream_of_a_function_that_cannot_stream_ends_before_the_deadline_with_its_events(
    start: Start, worker: SimulatedWorker
) -> None:
    await create(worker)
    async with start(POLLING, EDGE_LOG_MODE="stream") as function:
        assert await (await function.invoke({})).ended() == "answered"
        text = await ask(function, poll(), timeout_s=4)
        assert text.startswith("retry: 1000\n")
        assert function.starts == 1


@pytest.mark.parametrize("command", [STREAMING, POLLING])
async def test_a_request_that_takes_too_long_is_answered_before_the_deadline(start: Start, command: list[str]) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    url = "http://{}:{}".format(*silent.sockets[0].getsockname())
    event = function_url_event("GET", "/agent/runs", {"authorization": f"Bearer {TOKENS['ada']}"})
    async with start(command, UPSTASH_REDIS_REST_URL=url, UPSTASH_REDIS_REST_TIMEOUT_S="60") as function:
        assert await (await function.invoke({})).ended() == "answered"
        for _ in range(2):
            assert '"type":"urn:swissbrain:problem:out-of-time"' in await ask(function, event, timeout_s=2)
        assert function.starts == 1
    silent.close()
    await silent.wait_closed()


@pytest.mark.parametrize(("command", "mode"), FUNCTIONS)
async def test_a_frozen_function_has_no_open_subscription(
    start: Start, worker: SimulatedWorker, command: list[str], mode: str
) -> None:
    """The process is frozen as soon as it has responded, so anything that it has not closed by then stays open."""

    async def followers() -> int:
        reply = await worker.redis.command("PUBSUB", "NUMSUB", f"agent:logs:{RUN}")
        assert isinstance(reply, list)
        return int(str(reply[1]))

    async def no_follower() -> bool:
        return await followers() == 0

    await create(worker)
    async with start(command, EDGE_LOG_MODE=mode) as function:
        for _ in range(2):
            call = await function.invoke(poll(), timeout_s=5)

            async def followed() -> bool:
                return await followers() == 1

            await until(followed, "the log is followed")
            assert await call.ended() == "answered"
            await function.wait_frozen()
            await until(no_follower, "nobody follows the log")
            assert function.frozen


async def test_a_long_log_is_split_into_responses_within_lambdas_limit(start: Start, worker: SimulatedWorker) -> None:
    """Each letter takes six bytes in the response, because Lambda's runtime escapes every non-ASCII character."""
    await create(worker)
    lease = await worker.claim()
    for number in range(2, 90):
        await worker.emit(lease, note(number, text="é" * 25_000))
    await worker.finish(lease)
    seen: list[int] = []
    sizes: list[int] = []
    async with start(POLLING, EDGE_LOG_MODE="longpoll") as function:
        ended = False
        while not ended:
            call = await function.invoke(poll(seen[-1] if seen else 0))
            assert await call.ended() == "answered"
            sizes.append(len(call.body))
            text = (await call.head())["body"]
            seen += [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
            ended = "event: end\n" in text
    assert seen == list(range(1, 91))
    assert len(sizes) > 3
    assert MAX_BYTES / 3 < max(sizes) < MAX_BYTES * 2 / 3


async def test_a_missing_variable_is_reported_to_lambda(start: Start) -> None:
    async with start(POLLING, S3_SECRET_KEY="") as function:
        call = await function.invoke(poll())
        assert await call.ended() == "failed"
        assert call.error
        assert (call.error["errorType"], call.error["errorMessage"]) == ("SettingsError", "S3_SECRET_KEY is not set")


async def test_warm_up_events_get_an_immediate_response(start: Start) -> None:
    async with start(POLLING) as function:
        for event in ({"source": "aws.events", "detail-type": "Scheduled Event"}, {}):
            call = await function.invoke(event)
            assert await call.ended() == "answered"
            assert json.loads(call.body) == {"warm": True}


async def test_the_test_environment_kills_a_late_function(start: Start) -> None:
    """The tests of deadlines rely on this."""
    async with start(POLLING, EDGE_LOG_MODE="longpoll") as function:
        function.grace_s = 0
        call = await function.invoke({}, timeout_s=0.001)
        assert await call.ended() == "timed out"
        assert await function.exited() < 0
        assert call.deadline_ms < time.time() * 1000
        assert await (await function.invoke({})).ended() == "answered"
        assert function.starts == 2
