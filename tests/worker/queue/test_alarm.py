"""When a worker looks at the queue: by what it was told last, whichever way that came."""

import asyncio

import pytest

from worker.queue import alarm as worker_alarm
from worker.queue.alarm import Alarm

FAR_MS = 600_000


@pytest.fixture(autouse=True)
def _without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_alarm, "JITTER_S", 0.0)


async def rings(alarm: Alarm) -> bool:
    """Whether it rings before it would if it were set to FAR_MS."""
    try:
        async with asyncio.timeout(0.2):
            await alarm.wait()
    except TimeoutError:
        return False
    return True


async def test_an_answer_is_heeded() -> None:
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


@pytest.mark.parametrize("answer", [None, FAR_MS])
async def test_what_is_heard_before_an_answer_comes_is_not_forgotten_over_it(answer: int | None) -> None:
    """The answer may have been given before that was said."""
    alarm = Alarm()
    alarm.claim_sent()
    alarm.hasten(0)
    alarm.claim_answered(answer)
    assert await rings(alarm)
    alarm.claim_sent()
    alarm.set(0)
    alarm.claim_answered(answer)
    assert await rings(alarm)


async def test_a_nudge_that_was_taken_back_is_not_heeded_nor_one_from_before_the_claim() -> None:
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
