"""Messages: published with the SDK, delivered with real signatures, retried, and kept as dead letters."""

import asyncio
import base64
import json
import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from qstash import AsyncQStash, Receiver
from qstash.errors import QStashError, RateLimitExceededError, SignatureError
from qstash.log import LogState
from qstash.message import PublishResponse
from starlette.responses import Response

from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.qstash import (
    CURRENT_KEY,
    NEXT_KEY,
    QSTASH_TOKEN,
    Destination,
    NastyTransport,
    Received,
    stand_in,
    stand_in_settings,
)
from tests.support.waiting import until


async def publish(qstash: AsyncQStash, url: str, **fields: Any) -> str:
    answer = await qstash.message.publish(url=url, **fields)
    assert isinstance(answer, PublishResponse)
    assert not answer.deduplicated
    return answer.message_id


async def dead(qstash: AsyncQStash, count: int = 1) -> list[Any]:
    async def arrived() -> bool:
        return len((await qstash.dlq.list()).messages) >= count

    await until(arrived, f"{count} dead letters")
    return list((await qstash.dlq.list()).messages)


async def nothing_due(redis: RedisTcp) -> None:
    async def empty() -> bool:
        return await redis.command("ZCARD", "{qstash}:due") == 0

    await until(empty, "every message is settled")


async def test_a_message_arrives_as_it_was_published(qstash: AsyncQStash, target: Destination, redis: RedisTcp) -> None:
    url = f"{target.url}/v1/a%20b//c?x=1&y=%C3%A9"
    body = b"\x00\xff raw"
    message_id = await publish(
        qstash, url, body=body, method="PUT", headers={"X-Tenant": "ada"}, content_type="application/octet-stream"
    )

    (call,) = await target.wait_for(1)

    assert (call.url, call.method, call.body) == (url, "PUT", body)
    assert call.headers["x-tenant"] == "ada"
    assert call.headers["content-type"] == "application/octet-stream"
    assert call.headers["upstash-message-id"] == message_id
    assert call.headers["upstash-retried"] == "0"
    assert "authorization" not in call.headers
    await nothing_due(redis)
    with pytest.raises(QStashError, match="404"):
        await qstash.message.get(message_id)


async def test_the_receiver_of_the_sdk_accepts_the_signature_and_nothing_else(
    qstash: AsyncQStash, target: Destination
) -> None:
    await qstash.message.publish_json(url=f"{target.url}/hook?a=b", body={"n": 1})
    (call,) = await target.wait_for(1)
    signature, body = call.headers["upstash-signature"], call.body.decode()

    Receiver(CURRENT_KEY, NEXT_KEY).verify(signature=signature, body=body, url=call.url)
    Receiver("x" * 40, CURRENT_KEY).verify(signature=signature, body=body, url=call.url)
    for keys, text, url in [
        ((NEXT_KEY, "x" * 40), body, call.url),
        ((CURRENT_KEY, NEXT_KEY), body + " ", call.url),
        ((CURRENT_KEY, NEXT_KEY), body, f"{target.url}/hook?a=c"),
    ]:
        with pytest.raises(SignatureError):
            Receiver(*keys).verify(signature=signature, body=text, url=url)


async def test_a_failing_destination_is_called_again_until_it_answers(
    qstash: AsyncQStash, target: Destination, redis: RedisTcp
) -> None:
    target.answer = lambda call: Response(status_code=500 if call.headers["upstash-retried"] < "2" else 204)
    message_id = await publish(qstash, target.url)

    calls = await target.wait_for(3)
    await nothing_due(redis)

    assert [call.headers["upstash-retried"] for call in calls] == ["0", "1", "2"]
    assert {call.message_id for call in calls} == {message_id}
    # Each attempt has a signature of its own: QStash's are valid for five minutes, and the last retry comes after 30.
    assert len({call.headers["upstash-signature"] for call in calls}) == 3
    logs = (await qstash.log.list(filter={"message_id": message_id})).logs
    assert [log.state for log in logs] == [LogState.DELIVERED, LogState.RETRY, LogState.RETRY, LogState.CREATED]
    assert (await qstash.dlq.list()).messages == []


async def test_the_last_failure_makes_a_dead_letter_with_the_answer(qstash: AsyncQStash, target: Destination) -> None:
    target.answer = lambda _call: Response("broken", status_code=503, headers={"X-Reason": "tired"})
    message_id = await publish(qstash, target.url, body="hello", retries=1)

    (letter,) = await dead(qstash)

    assert (letter.message_id, letter.response_status, letter.response_body) == (message_id, 503, "broken")
    assert (letter.body, letter.response_headers["x-reason"], letter.max_retries) == ("hello", ["tired"], 1)
    assert len(target.calls) == 2
    assert (await qstash.dlq.get(letter.dlq_id)).url == target.url
    await qstash.dlq.delete(letter.dlq_id)
    assert (await qstash.dlq.list()).messages == []


async def test_a_final_error_is_not_retried(qstash: AsyncQStash, target: Destination) -> None:
    target.answer = lambda _call: Response("no", status_code=489, headers={"Upstash-NonRetryable-Error": "true"})
    await publish(qstash, target.url)

    (letter,) = await dead(qstash)

    assert letter.response_status == 489
    assert len(target.calls) == 1


async def test_a_destination_that_hangs_or_refuses_is_an_error(qstash: AsyncQStash, target: Destination) -> None:
    async def hang(_call: Received) -> Response:
        await asyncio.sleep(30)
        return Response()

    target.answer = hang
    await publish(qstash, target.url, timeout=0, retries=0)
    await publish(qstash, "http://127.0.0.1:1/", retries=0)

    assert {letter.response_status for letter in await dead(qstash, 2)} == {0}


@pytest.mark.parametrize("wait", ["86400", "date"])
async def test_retry_after_is_honoured(qstash: AsyncQStash, target: Destination, redis: RedisTcp, wait: str) -> None:
    wait = formatdate(time.time() + 86_400, usegmt=True) if wait == "date" else wait
    target.answer = lambda _call: Response(status_code=429, headers={"Retry-After": wait})
    message_id = await publish(qstash, target.url)
    await target.wait_for(1)

    async def postponed() -> bool:
        due = float(str(await redis.command("ZSCORE", "{qstash}:due", message_id)))
        seconds = int((await redis.command("TIME"))[0])  # type: ignore[index, arg-type]
        # 86,400 s in the scale of the tests; the first retry comes after 12 ms by itself.
        return 20 < due / 1000 - seconds < 90

    await until(postponed, "the message is due in 86 s")
    await qstash.message.cancel(message_id)


async def test_delayed_messages_wait_and_can_be_cancelled(qstash: AsyncQStash, target: Destination) -> None:
    late = await publish(qstash, target.url, delay="1h30m", body="late")
    await publish(qstash, target.url, not_before=4102444800, body="later")
    await publish(qstash, target.url, delay=0, body="now")

    await target.wait_for(1)

    message = await qstash.message.get(late)
    assert message.not_before - message.created_at == 5400_000
    await qstash.message.cancel(late)
    with pytest.raises(QStashError, match="404"):
        await qstash.message.get(late)
    assert [call.body for call in target.calls] == [b"now"]


async def test_messages_with_the_same_deduplication_id_are_one(qstash: AsyncQStash, target: Destination) -> None:
    for fields in ({"deduplication_id": "a"}, {"content_based_deduplication": True}):
        first, second = [await qstash.message.publish(url=target.url, body="x", **fields) for _ in range(2)]
        assert isinstance(first, PublishResponse)
        assert isinstance(second, PublishResponse)
        assert (second.message_id, second.deduplicated) == (first.message_id, True)
    other = await qstash.message.publish(url=target.url, body="y", content_based_deduplication=True)
    assert isinstance(other, PublishResponse)
    assert not other.deduplicated

    assert sorted(call.body for call in await target.wait_for(3)) == [b"x", b"x", b"y"]


async def test_callbacks_report_each_attempt_and_the_failure(qstash: AsyncQStash, target: Destination) -> None:
    target.answer = lambda call: Response("out", status_code=500 if call.url.endswith("/job") else 200)
    job = await publish(
        qstash,
        f"{target.url}/job",
        body="in",
        retries=1,
        callback=f"{target.url}/each",
        failure_callback=f"{target.url}/failed",
        failure_callback_headers={"X-Key": "k"},
    )

    calls = await target.wait_for(5)

    reports = [call for call in calls if not call.url.endswith("/job")]
    assert sorted(call.url.rpartition("/")[2] for call in reports) == ["each", "each", "failed"]
    (failed,) = [call for call in reports if call.url.endswith("/failed")]
    told = json.loads(failed.body)
    assert (told["sourceMessageId"], told["status"], told["retried"], told["maxRetries"]) == (job, 500, 1, 1)
    assert base64.b64decode(told["body"]) == b"out"
    assert base64.b64decode(told["sourceBody"]) == b"in"
    assert failed.headers["x-key"] == "k"


async def test_each_fault_of_the_network_leads_to_at_least_one_delivery(
    qstash: AsyncQStash, target: Destination, network: NastyTransport, redis: RedisTcp
) -> None:
    network.next_faults += ["duplicate", "lost", "refused", "late", "", "lost"]
    for number in range(4):
        await publish(qstash, target.url, body=str(number))

    await nothing_due(redis)

    assert {call.body for call in target.calls} == {b"0", b"1", b"2", b"3"}
    assert len(target.calls) == 4 + 1 + 2  # the duplicate, and each lost answer
    assert not network.next_faults
    assert (await qstash.dlq.list()).messages == []


RATE = {"Upstash-Flow-Control-Value": "parallelism=1, rate=5, period=1s"}


async def test_a_full_queue_and_bad_requests_are_refused_by_name(
    qstash: AsyncQStash, stand_in_url: str, target: Destination
) -> None:
    headers = {"Authorization": f"Bearer {QSTASH_TOKEN}"}
    async with httpx.AsyncClient(base_url=stand_in_url, headers=headers) as http:
        for path, given, words in [
            ("publish/ftp://x", {}, "destination"),
            ("publish/not-a-url", {}, "not supported"),
            ("publish/http://u:p@x/", {}, "credentials"),
            ("publish/http://x/", {"Upstash-Queue-Name": "q"}, "upstash-queue-name"),
            ("publish/http://x/", {"Upstash-Delay": "soon"}, "upstash-delay"),
            ("publish/http://x/", {"Upstash-Retries": "1000"}, "upstash-retries"),
            ("publish/http://x/", {"Upstash-Method": "TRACE"}, "Upstash-Method"),
            ("publish/http://x/", {"Upstash-Flow-Control-Key": "k"}, "Upstash-Flow-Control-Value"),
            ("publish/http://x/", {"Upstash-Flow-Control-Value": "parallelism=1"}, "Upstash-Flow-Control-Key"),
            ("publish/http://x/", {"Upstash-Flow-Control-Key": "k", **RATE}, "a rate is not supported"),
            ("schedules/http://x/", {"Upstash-Cron": "every day"}, "five fields"),
            ("schedules/http://x/", {}, "five fields"),
        ]:
            answer = await http.post(f"/v2/{path}", headers=given)
            assert answer.status_code == 400, path
            assert words in answer.json()["error"]
        assert (await http.post("/v2/publish/http://x/", content=b"x" * (1024 * 1024 + 1))).status_code == 413
        wrong = {"Authorization": "Bearer wrong"}
        assert (await http.get("/v2/schedules", headers=wrong)).status_code == 401
        assert (await http.get("/v2/queues")).status_code == 404
    for _ in range(50):
        await qstash.message.publish(url=target.url, delay="1h")
    with pytest.raises(RateLimitExceededError):
        await qstash.message.publish(url=target.url)


async def test_deliveries_are_bounded_and_a_slow_host_stops_no_other(
    redis: RedisTcp, tcp_settings: RedisTcpSettings, target: Destination
) -> None:
    under_way, most = 0, 0
    released = asyncio.Event()

    async def slow(call: Received) -> Response:
        nonlocal under_way, most
        if call.url.endswith("/quick"):
            return Response()
        under_way += 1
        most = max(most, under_way)
        await released.wait()
        under_way -= 1
        return Response()

    target.answer = slow
    settings = stand_in_settings(tcp_settings, concurrency=8, concurrency_per_host=2)
    async with stand_in(settings) as url:
        qstash = AsyncQStash(QSTASH_TOKEN, retry=False, base_url=url)
        for _ in range(6):
            await qstash.message.publish(url=f"{target.url}/slow")
        other = target.url.replace("127.0.0.1", "localhost")
        await qstash.message.publish(url=f"{other}/quick")

        async def quick() -> bool:
            return any(call.url.endswith("/quick") for call in target.calls)

        await until(quick, "the other host is called")
        assert under_way == 2
        released.set()
        await nothing_due(redis)
        await qstash.http._client.aclose()
    assert most == 2


async def test_messages_of_one_key_stop_no_other_of_the_same_host(
    redis: RedisTcp, tcp_settings: RedisTcpSettings, target: Destination
) -> None:
    under_way: list[str] = []
    released = asyncio.Event()

    async def slow(call: Received) -> Response:
        under_way.append(call.url.rpartition("/")[2])
        await released.wait()
        return Response()

    target.answer = slow
    async with stand_in(stand_in_settings(tcp_settings, concurrency=8, concurrency_per_host=4)) as url:
        qstash = AsyncQStash(QSTASH_TOKEN, retry=False, base_url=url)
        for _ in range(6):
            await qstash.message.publish(url=f"{target.url}/many", flow_control={"key": "a", "parallelism": 2})
        for _ in range(2):
            await qstash.message.publish(url=f"{target.url}/few", flow_control={"key": "b", "parallelism": 2})

        async def both() -> bool:
            return under_way.count("few") == 2

        await until(both, "the other key has its share")
        assert under_way.count("many") == 2
        released.set()
        await nothing_due(redis)
        await qstash.http._client.aclose()
    assert (under_way.count("many"), under_way.count("few")) == (6, 2)
