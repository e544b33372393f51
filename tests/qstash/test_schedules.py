"""Schedules of the stand-in: each tick becomes one message, whatever happens in between."""

import asyncio

import pytest
from qstash import AsyncQStash
from qstash.errors import QStashError, RateLimitExceededError
from starlette.responses import Response

from infra.qstash_local.delivery import now_ms
from infra.qstash_local.messages import CronSchedule, OutboundCall, QueuedMessage
from infra.qstash_local.scheduler import IDLE_S, Scheduler
from infra.qstash_local.state import QStashState
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.command_counts import billed_commands
from tests.support.qstash import Destination, Received, sdk, stand_in, stand_in_settings
from tests.support.waiting import until

MONTHLY = "CRON_TZ=Europe/Zurich 0 8 1 * *"


async def fire(redis: RedisTcp, qstash: AsyncQStash, schedule: str, at_ms: int = 1) -> None:
    """Let the schedule be due now, and wake the stand-in with another message."""
    await redis.command("ZADD", "{qstash}:ticks", at_ms, schedule)
    await qstash.message.cancel((await qstash.message.publish(url="http://127.0.0.1:1/", delay="1d")).message_id)  # type: ignore[union-attr]


async def test_the_sdk_manages_schedules(qstash: AsyncQStash) -> None:
    made = await qstash.schedule.create(
        destination="http://127.0.0.1:1/tick?a=b", cron=MONTHLY, body="b", schedule_id="sch-1", retries=2, delay="10s"
    )
    assert made == "sch-1"
    other = await qstash.schedule.create_json(destination="http://127.0.0.1:1/", cron="0 0 1 1 *", body={"n": 1})

    shown = await qstash.schedule.get("sch-1")

    assert (shown.cron, shown.destination, shown.retries) == (MONTHLY, "http://127.0.0.1:1/tick?a=b", 2)
    assert (shown.paused, shown.body, shown.delay) == (False, "b", 10)
    assert shown.next_schedule_time
    assert shown.next_schedule_time > shown.created_at
    assert {each.schedule_id for each in await qstash.schedule.list()} == {"sch-1", other}
    await qstash.schedule.pause("sch-1")
    assert (await qstash.schedule.get("sch-1")).paused
    await qstash.schedule.resume("sch-1")
    assert (await qstash.schedule.get("sch-1")).next_schedule_time == shown.next_schedule_time
    await qstash.schedule.create(destination="http://127.0.0.1:1/", cron="0 9 * * *", schedule_id="sch-1")
    assert (await qstash.schedule.get("sch-1")).cron == "0 9 * * *"
    await qstash.schedule.delete("sch-1")
    for call in (qstash.schedule.get, qstash.schedule.delete, qstash.schedule.pause, qstash.schedule.resume):
        with pytest.raises(QStashError, match="404"):
            await call("sch-1")
    for _ in range(4):
        await qstash.schedule.create(destination="http://127.0.0.1:1/", cron=MONTHLY)
    with pytest.raises(RateLimitExceededError):
        await qstash.schedule.create(destination="http://127.0.0.1:1/", cron=MONTHLY)


async def test_a_tick_is_one_message_and_the_next_one_is_in_the_future(
    qstash: AsyncQStash, target: Destination, redis: RedisTcp
) -> None:
    schedule = await qstash.schedule.create(destination=target.url, cron="* * * * *", body="tick")
    # Due since 1970: ticks that were missed while no process ran are one tick, not 29 million.
    await fire(redis, qstash, schedule)

    (call,) = await target.wait_for(1)

    assert (call.body, call.headers["upstash-schedule-id"]) == (b"tick", schedule)
    following = (await qstash.schedule.get(schedule)).next_schedule_time
    assert following
    assert following > now_ms() - 60_000
    await fire(redis, qstash, schedule, 2)
    first, second = await target.wait_for(2)
    assert first.message_id != second.message_id


async def test_paused_and_deleted_schedules_are_not_due(
    qstash: AsyncQStash, target: Destination, redis: RedisTcp
) -> None:
    schedule = await qstash.schedule.create(destination=target.url, cron=MONTHLY)
    await qstash.schedule.pause(schedule)
    assert await redis.command("ZCARD", "{qstash}:ticks") == 0
    await qstash.schedule.delete(schedule)
    await fire(redis, qstash, schedule)

    async def tidied() -> bool:
        return await redis.command("ZCARD", "{qstash}:ticks") == 0

    await until(tidied, "the schedule that no longer exists leaves the set")
    assert target.calls == []


async def test_two_processes_turn_a_tick_into_one_message(redis: RedisTcp, tcp_settings: RedisTcpSettings) -> None:
    state = QStashState(redis, stand_in_settings(tcp_settings))
    call = OutboundCall(url="http://127.0.0.1:1/")
    schedule = CronSchedule(id="s", cron="* * * * *", call=call, created_ms=0)
    await state.save_schedule(schedule, 5)
    looks = [await state.look(1), await state.look(1)]
    assert [ticks for look in looks for ticks, _ in look.ticks] == [5, 5]
    message = QueuedMessage(call=call, created_ms=0)

    outcomes = [await state.store_tick(schedule, 5, 60_000, message) for _ in looks]

    assert outcomes == ["OK", "LOST"]
    assert await redis.command("ZCARD", "{qstash}:due") == 1


async def test_a_message_is_settled_by_its_last_take_alone(redis: RedisTcp, tcp_settings: RedisTcpSettings) -> None:
    state = QStashState(redis, stand_in_settings(tcp_settings))
    message_id, _ = await state.publish(QueuedMessage(call=OutboundCall(url="http://127.0.0.1:1/"), created_ms=0), None)
    (first,) = (await state.look(1)).messages
    assert not (await state.look(1)).messages, "a message that is under way is not due"
    await redis.command("ZADD", "{qstash}:due", 1, message_id)  # the first process has died
    (second,) = (await state.look(1)).messages

    assert not await state.settle(first, "delivered")
    assert await state.settle(second, "delivered")
    assert not await state.settle(second, "delivered")
    assert await redis.command("EXISTS", f"{{qstash}}:message:{message_id}") == 0


async def test_a_tick_waits_while_no_more_messages_are_taken(
    redis: RedisTcp, tcp_settings: RedisTcpSettings, target: Destination
) -> None:
    settings = stand_in_settings(tcp_settings, max_messages=1)
    state = QStashState(redis, settings)
    late = QueuedMessage(call=OutboundCall(url=target.url, delay_s=3600), created_ms=0)
    message_id, _ = await state.publish(late, None)
    await state.save_schedule(CronSchedule(id="s", cron=MONTHLY, call=OutboundCall(url=target.url), created_ms=0), 1)

    async with stand_in(settings):
        await asyncio.sleep(0.1)
        assert target.calls == []
        await state.cancel(message_id)
        await target.wait_for(1)


async def test_a_host_that_holds_its_messages_still_gets_its_ticks(
    redis: RedisTcp, tcp_settings: RedisTcpSettings, target: Destination
) -> None:
    released = asyncio.Event()

    async def hold_hooks(call: Received) -> Response:
        if call.url.endswith("/hook"):
            await released.wait()
        return Response()

    target.answer = hold_hooks
    settings = stand_in_settings(tcp_settings, concurrency=4, concurrency_per_host=2)
    async with stand_in(settings) as url, sdk(url) as qstash:
        for _ in range(4):
            await qstash.message.publish(url=f"{target.url}/hook")
        await target.wait_for(2)
        await qstash.schedule.create(destination=f"{target.url}/tick", cron=MONTHLY, schedule_id="s")
        await fire(redis, qstash, "s")

        calls = await target.wait_for(3)

        assert [call.url.rpartition("/")[2] for call in calls] == ["hook", "hook", "tick"]
        released.set()
        await target.wait_for(5)


async def test_an_idle_process_sends_few_commands(redis: RedisTcp, tcp_settings: RedisTcpSettings) -> None:
    state = QStashState(redis, stand_in_settings(tcp_settings))
    scheduler = Scheduler(state, None, stand_in_settings(tcp_settings))  # type: ignore[arg-type]
    await state.save_schedule(
        CronSchedule(id="s", cron=MONTHLY, call=OutboundCall(url="http://127.0.0.1:1/"), created_ms=0), now_ms() + 10**9
    )
    await scheduler._round()
    before = await billed_commands(redis)

    wait_s = await scheduler._round()

    commands = (await billed_commands(redis)).total() - before.total()
    assert wait_s == IDLE_S
    assert commands * 3600 / wait_s <= 120
    assert commands <= 7


async def test_an_outage_of_redis_ends_no_delivery(
    qstash: AsyncQStash, target: Destination, redis: RedisTcp, tcp_settings: RedisTcpSettings
) -> None:
    schedule = await qstash.schedule.create(destination=target.url, cron="* * * * *")
    await redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await redis.command("ZADD", "{qstash}:ticks", 1, schedule)

    async def woken() -> bool:
        try:
            await qstash.message.publish(url="http://127.0.0.1:1/", delay="1d", deduplication_id="wake")
        except QStashError:
            return False
        return True

    await until(woken, "the stand-in has connections again")
    await target.wait_for(1)


async def test_damaged_records_stop_nothing_beside_them(
    qstash: AsyncQStash, target: Destination, redis: RedisTcp
) -> None:
    good = await qstash.schedule.create(destination=target.url, cron=MONTHLY)
    for name, spec in [
        ("junk", "nonsense"),
        ("zone", '{"id":"zone","cron":"CRON_TZ=Mars/X * * * * *","created_ms":1}'),
    ]:
        await redis.command("HSET", "{qstash}:schedules", name, spec.replace("}", ',"call":{"url":"http://x/"}}'))
        await redis.command("ZADD", "{qstash}:ticks", 1, name)
    await redis.command("HSET", "{qstash}:message:junk", "spec", "nonsense", "retried", 0, "timeout_ms", 1)
    await redis.command("ZADD", "{qstash}:due", 1, "junk")

    await fire(redis, qstash, good)

    await target.wait_for(1)

    async def paused() -> bool:
        return await redis.command("ZRANGE", "{qstash}:ticks", 0, -1) == [good]

    await until(paused, "the damaged schedules are due no longer")
