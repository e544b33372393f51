"""Batching of the emitter, on a virtual clock and with a store whose replies the tests control."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.json import encode as json

from infra.contract.events import Message
from infra.contract.queue import Lease, LeaseReply, Writes
from infra.contract.redis_store import codec
from infra.contract.states import Outcome
from infra.contract.usage import RunUsage
from tests.support.run_store import RunStore
from tests.worker.leaping import LeapingLoop
from worker.run import emitter as module
from worker.run.archiver import Archiver
from worker.run.emitter import LogEmitter

BATCH_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024
FIRST_S = 0.05
OVERHEAD_BYTES = 100
"""Upper bound of the size that is counted for an event besides its text."""


class SlowStore(RunStore):
    """Store that records each batch with its time; replies immediately, or once for each release of `answer`."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, Writes]] = []
        self.answer: asyncio.Semaphore | None = None

    async def emit(self, lease: Lease, writes: Writes) -> LeaseReply:
        self.batches.append((now(), writes))
        if self.answer:
            await self.answer.acquire()
        return LeaseReply(outcome=Outcome.OK)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.batches]

    @property
    def texts(self) -> list[list[str]]:
        """Texts of the events of each batch."""
        return [[str(event.data["text"]) for event in writes.events] for _, writes in self.batches]


class EndlessArchiver:
    """Archiver that never makes a caller wait."""

    is_full = False

    def count_stored(self, events: int, size_bytes: int) -> None:
        return


class Bench:
    """Emitter with its store."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.store = SlowStore()
        self.began = now()
        archiver = cast("Archiver", EndlessArchiver())
        self.emitter = LogEmitter(self.store, Lease("run_1", 1), lambda _: None, archiver, window_s)

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.emitter.emit(Message(text=text))

    async def pause(self) -> float:
        """Send the first batch, then let a long time pass; return the current time."""
        await self.say("first")
        await asyncio.sleep(60)
        assert self.store.texts == [["first"]]
        self.store.batches.clear()
        return now()


Run = Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=[0.1, 0.01])
def window_s(request: pytest.FixtureRequest) -> float:
    """Window of the emitter in the test."""
    return float(request.param)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, window_s: float) -> Iterator[Run]:
    """Run a test in an event loop with a virtual clock, which the emitter uses as well."""
    clock = SimpleNamespace(monotonic=lambda: now(), time_ns=time.time_ns)
    monkeypatch.setattr(module, "time", clock)

    async def whole(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
        bench = Bench(window_s)
        try:
            await test(bench)
        finally:
            await bench.emitter.abandon()

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        yield lambda test: runner.run(whole(test))


def now() -> float:
    return asyncio.get_running_loop().time()


def numbered(count: int, size: int = 1000) -> list[str]:
    return [f"{number} {'x' * size}" for number in range(count)]


def test_the_first_event_after_a_pause_is_sent_immediately_and_the_next_ones_together(run: Run) -> None:
    async def test(bench: Bench) -> None:
        began = await bench.pause()
        await bench.say("alone")
        await asyncio.sleep(bench.window_s / 10)
        assert bench.store.texts == [["alone"]]
        assert bench.store.times == [began]
        later = [f"later {number}" for number in range(50)]
        await bench.say(*later)
        await asyncio.sleep(bench.window_s / 2)
        await bench.say("last")
        assert bench.store.texts == [["alone"]]
        await asyncio.sleep(60)
        assert bench.store.texts == [["alone"], [*later, "last"]]
        assert bench.store.times == pytest.approx([began, began + bench.window_s])

    run(test)


def test_a_steady_log_is_sent_in_one_batch_per_window(run: Run) -> None:
    async def test(bench: Bench) -> None:
        began = await bench.pause()
        for number in range(1000):
            await bench.say(str(number))
            await asyncio.sleep(bench.window_s / 100)
        await bench.emitter.flush()
        assert [text for texts in bench.store.texts for text in texts] == [str(number) for number in range(1000)]
        assert bench.store.times[:-1] == pytest.approx(
            [began + number * bench.window_s for number in range(10)], abs=0.002
        )
        assert len(bench.store.batches) <= 11

    run(test)


def test_the_first_events_of_a_claim_are_sent_together_after_50_ms(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.say("one")
        await asyncio.sleep(FIRST_S / 2)
        await bench.say("two")
        await asyncio.sleep(60)
        assert bench.store.texts == [["one", "two"]]
        assert bench.store.times == pytest.approx([bench.began + FIRST_S])

    run(test)


def test_the_log_of_a_short_run_costs_no_batch(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.say("one")
        await asyncio.sleep(FIRST_S / 2)
        await bench.say("two")
        rest = await bench.emitter.close()
        assert [event.data["text"] for event in rest.events] == ["one", "two"]
        await asyncio.sleep(60)
        assert bench.store.batches == []

    run(test)


def test_usage_of_the_writes_of_a_batch_is_added_up(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        used = RunUsage(exchanges=1, input=5, costs={"CHF": 2})
        for usage in (used, None, used, RunUsage(exchanges=1, unpriced=1, costs={"USD": 3})):
            bench.emitter.put(Writes(usage=usage))
        await bench.emitter.flush()
        bench.emitter.put(Writes(usage=used))
        bench.emitter.put(Writes(journal={"a": "1"}))
        rest = await bench.emitter.close()
        ((_, batch),) = bench.store.batches
        assert batch.usage == RunUsage(exchanges=3, input=10, unpriced=1, costs={"CHF": 4, "USD": 3})
        assert (rest.usage, rest.journal) == (used, {"a": "1"})

    run(scenario)


def test_flush_does_not_wait_for_further_events(run: Run) -> None:
    async def test(bench: Bench) -> None:
        began = await bench.pause()
        for text in ("one", "two", "three"):
            await bench.say(text)
            await bench.emitter.flush()
        assert bench.store.texts == [["one"], ["two"], ["three"]]
        assert bench.store.times == [began] * 3

    run(test)


@pytest.mark.parametrize("character", ["x", "é", "😀", '"', "\0"])
def test_a_full_batch_is_sent_immediately_and_no_batch_exceeds_64_kb(run: Run, character: str) -> None:
    texts = [text + character * 500 for text in numbered(60)]

    async def test(bench: Bench) -> None:
        await bench.pause()
        await bench.say("before")
        await asyncio.sleep(bench.window_s / 10)
        made = now()
        await bench.say(*texts)
        await asyncio.sleep(60)
        batches = bench.store.texts[1:]
        assert [text for batch in batches for text in batch] == texts
        assert max(len(codec.encode_events(writes.events).encode()) for _, writes in bench.store.batches) <= BATCH_BYTES
        for batch, following in pairwise(batches):
            assert sum(len(json(text)) + OVERHEAD_BYTES for text in [*batch, following[0]]) > BATCH_BYTES
        assert bench.store.times[1:] == [made] * len(batches)

    run(test)


def test_writes_larger_than_a_batch_are_sent_alone_and_undivided(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.pause()
        await bench.say("before")
        bench.emitter.put(Writes(events=[], journal={"step:0": "x" * 2 * BATCH_BYTES}))
        await bench.say("after")
        await bench.emitter.flush()
        assert bench.store.texts == [["before"], [], ["after"]]
        assert [len(writes.journal.get("step:0", "")) for _, writes in bench.store.batches] == [0, 2 * BATCH_BYTES, 0]

    run(test)


def test_a_caller_that_logs_waits_for_space_in_a_full_buffer_while_redis_is_slow(run: Run) -> None:
    texts, logged = numbered(1500), 0

    async def test(bench: Bench) -> None:
        nonlocal logged
        await bench.pause()
        bench.store.answer = asyncio.Semaphore(0)

        async def make() -> None:
            nonlocal logged
            for text in texts:
                await bench.say(text)
                logged += 1

        making = asyncio.create_task(make())
        size = len(texts[0])
        for answered in range(4):
            await asyncio.sleep(60)
            assert len(bench.store.batches) == answered + 1
            least = BUFFER_BYTES + answered * BATCH_BYTES
            assert least * 0.9 < logged * size <= least + BATCH_BYTES
            bench.store.answer.release()
        for _ in texts:
            bench.store.answer.release()
        await making
        await bench.emitter.flush()
        assert [text for batch in bench.store.texts for text in batch] == texts

    run(test)
