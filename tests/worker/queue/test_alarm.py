"""Alarm of the worker loop: claim replies and control messages move the deadline.

On a virtual clock: on a machine that stands still for a moment, the alarm and the limit of a test are due at once.
"""

import asyncio
from types import SimpleNamespace

import pytest

from tests.worker.leaping import on_virtual_clock
from worker.queue import alarm as worker_alarm
from worker.queue.alarm import Alarm

FAR_MS = 600_000


@pytest.fixture(autouse=True)
def _without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_alarm, "JITTER_S", 0.0)
    monkeypatch.setattr(worker_alarm, "time", SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time()))


async def rings(alarm: Alarm) -> bool:
    """Return whether the alarm rings soon, not only after FAR_MS."""
    try:
        async with asyncio.timeout(0.2):
            await alarm.wait()
    except TimeoutError:
        return False
    return True


@on_virtual_clock
async def test_a_claim_reply_sets_the_alarm() -> None:
    alarm = Alarm()
    alarm.claim_sent()
    alarm.claim_answered(0)
    assert await rings(alarm)
    alarm.claim_sent()
    alarm.claim_answered(FAR_MS)
    assert not await rings(alarm)
    alarm.claim_sent()
    alarm.claim_answered(None)
    assert not await rings(alarm)


@pytest.mark.parametrize("next_ms", [None, FAR_MS])
@on_virtual_clock
async def test_a_control_message_received_during_a_claim_outlives_its_reply(next_ms: int | None) -> None:
    """The reply may have been computed before the message was sent."""
    alarm = Alarm()
    alarm.claim_sent()
    alarm.hasten(0)
    alarm.claim_answered(next_ms)
    assert await rings(alarm)
    alarm.claim_sent()
    alarm.set(0)
    alarm.claim_answered(next_ms)
    assert await rings(alarm)


@on_virtual_clock
async def test_a_superseded_control_message_does_not_ring() -> None:
    alarm = Alarm()
    alarm.claim_sent()
    alarm.hasten(0)
    alarm.set(FAR_MS)
    alarm.claim_answered(None)
    assert not await rings(alarm)
    alarm.hasten(0)
    alarm.claim_sent()
    alarm.claim_answered(FAR_MS)
    assert not await rings(alarm)


@on_virtual_clock
async def test_a_late_alarm_rings_after_those_of_the_others() -> None:
    alarm = Alarm()
    alarm.be_late(600)
    alarm.set(0)
    assert not await rings(alarm)
    alarm.be_late(0)
    alarm.set(0)
    assert await rings(alarm)


async def is_urgent(alarm: Alarm) -> bool:
    """Return whether a worker without a free slot is woken soon."""
    try:
        async with asyncio.timeout(0.2):
            await alarm.wait_urgent()
    except TimeoutError:
        return False
    return True


@on_virtual_clock
async def test_a_lease_that_a_cancel_has_shortened_wakes_workers_without_a_slot_too() -> None:
    alarm = Alarm()
    alarm.hasten(0)
    assert not await is_urgent(alarm)
    alarm.urge(50)
    alarm.set(FAR_MS)  # a claim before the lease expires
    assert await is_urgent(alarm)
    assert not await is_urgent(alarm)


@on_virtual_clock
async def test_the_claim_of_another_worker_after_the_expiry_makes_it_less_urgent() -> None:
    alarm = Alarm()
    alarm.urge(0)
    alarm.set(FAR_MS)
    assert not await is_urgent(alarm)
    assert not await rings(alarm)
