"""Runs that wait for people, with a strategy that asks: slots, other workers, old answers, expiry."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from infra.contract.requests import GivenAnswer, OpenRequest, StoredAnswer, request_id
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from tests.contract.driver import expire_request
from tests.support.requests import YES, in_ms
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.run.context import RunContext
from worker.run.people import ask, read_inbox
from worker.run.strategy import StepFailed


class Asks:
    """Strategy that asks for the approval of each of `calls` calls, and makes those that are approved."""

    def __init__(self, calls: int = 1, *, on_expiry: str = "fail") -> None:
        self.calls = calls
        self.made: Counter[str] = Counter()
        self.begun = 0
        self._on_expiry = on_expiry

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        self.begun += 1
        results = []
        for number in range(self.calls):
            request = self.request(context.run.id, number)
            answer = (await ask(context, f"input:{number}:0", [request]))[request.id]
            results.append(await context.once(f"tool:{number}:0", str, partial(self._call, number, answer)))
        return {"results": results}

    def request(self, run_id: str, number: int) -> OpenRequest:
        args = {"number": number}
        return OpenRequest(
            id=request_id(run_id, f"input:{number}:0", "shell", args),
            kind="approval",
            question=f"May I make call {number}?",
            expires_ms=in_ms(3600),
            on_expiry="deny" if self._on_expiry == "deny" else "fail",
            tool="shell",
            args=args,
        )

    async def _call(self, number: int, answer: StoredAnswer) -> str:
        if not answer.approve:
            return "not made"
        self.made[str(number)] += 1
        return "made"


async def waits(rig: Rig, run_id: str) -> str:
    """Return the id of the open request once the run waits."""

    async def is_waiting() -> bool:
        return (await rig.store.get(run_id)).status is Status.WAITING

    await until(is_waiting, "the run waits")
    head = await rig.store.head(run_id)
    assert head.waiting
    (request,) = head.waiting.requests
    return request.id


async def test_a_waiting_run_frees_its_slot_and_lease_and_continues_on_another_worker(rig: Rig) -> None:
    first = Asks()
    worker = rig.worker(strategy=first, slots=1)
    run_id = await rig.submit(prompt="x")
    request = await waits(rig, run_id)

    async def is_free() -> bool:
        return len(worker.keeper) == 0 and (await rig.store.depths()).running == 0

    await until(is_free, "slot and lease are free")
    other = await rig.submit(prompt="y")
    await waits(rig, other)
    await worker.drained()

    second = Asks()
    rig.worker(strategy=second)
    await rig.store.resume(run_id, {request: YES}, by="ada", token="t")
    record = await rig.ended(run_id)
    assert (record.status, record.result) == (Status.SUCCEEDED, {"results": ["made"]})
    assert (first.made.total(), second.made) == (0, {"0": 1})
    assert await rig.kinds(run_id) == ["run.started", "run.waiting", "run.input", "run.resumed", "run.finished"]


async def test_many_waits_count_no_attempt_and_every_call_is_made_once(rig: Rig) -> None:
    asks = Asks(6)
    rig.worker(strategy=asks)
    run_id = await rig.submit(prompt="x", max_attempts=1)
    for number in range(6):
        request = await waits(rig, run_id)
        assert request == asks.request(run_id, number).id
        await rig.store.resume(run_id, {request: YES}, by="ada", token=f"t{number}")
        if number < 5:

            async def asked_next(last: str = request) -> bool:
                waiting = (await rig.store.head(run_id)).waiting
                return waiting is not None and waiting.requests[0].id != last

            await until(asked_next, "the next request is open")
    record = await rig.ended(run_id)
    assert (record.status, record.attempt) == (Status.SUCCEEDED, 1)
    assert asks.made == {str(number): 1 for number in range(6)}


async def test_an_answer_to_an_old_question_never_reaches_a_new_one(rig: Rig) -> None:
    asks = Asks(2)
    rig.worker(strategy=asks)
    run_id = await rig.submit(prompt="x")
    old = await waits(rig, run_id)
    await rig.store.resume(run_id, {old: YES}, by="ada", token="first click")

    async def asked_again() -> bool:
        waiting = (await rig.store.head(run_id)).waiting
        return waiting is not None and waiting.requests[0].id != old

    await until(asked_again, "the second request is open")
    assert (await rig.store.resume(run_id, {old: YES}, by="ada", token="second"))[0] is Outcome.REFUSED
    await rig.store.cancel(run_id)
    await rig.store.retry(run_id, token="again")
    new = await waits(rig, run_id)
    assert asks.made == {"0": 1}
    await rig.store.resume(run_id, {new: GivenAnswer(approve=False)}, by="ada", token="no")
    assert (await rig.ended(run_id)).result == {"results": ["made", "not made"]}
    assert asks.made == {"0": 1}


async def test_an_answer_is_not_asked_for_again_after_a_kill(rig: Rig) -> None:
    class Slow(Asks):
        async def _call(self, number: int, answer: StoredAnswer) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    slow = Slow()
    worker = rig.worker(strategy=slow)
    run_id = await rig.submit(prompt="x")
    request = await waits(rig, run_id)
    await rig.store.resume(run_id, {request: YES}, by="ada", token="t")

    async def is_answered() -> bool:
        return "input:0:0" in await rig.store.journal(run_id)

    await until(is_answered, "the answer is in the journal, though the call has not returned")
    await worker.killed()
    await rig.expire_lease(run_id)
    asks = Asks()
    rig.worker(strategy=asks)
    assert (await rig.ended(run_id)).result == {"results": ["made"]}
    assert (await rig.kinds(run_id)).count("run.waiting") == 1


async def test_a_request_that_nobody_answers_is_denied_without_a_poll(rig: Rig) -> None:
    rig.worker(strategy=Asks(on_expiry="deny"))
    run_id = await rig.submit(prompt="x")
    await expire_request(rig.redis, run_id, await waits(rig, run_id))
    await rig.redis.command("PUBLISH", rig.store.keys.control, "due 0")
    assert (await rig.ended(run_id)).result == {"results": ["not made"]}


async def test_a_sleeping_worker_wakes_when_a_request_expires(rig: Rig) -> None:
    class Hasty(Asks):
        def request(self, run_id: str, number: int) -> OpenRequest:
            request = super().request(run_id, number)
            return OpenRequest(
                **{name: getattr(request, name) for name in request.__struct_fields__} | {"expires_ms": in_ms(0.3)}
            )

    rig.worker(strategy=Hasty(on_expiry="fail"))
    record = await rig.ended(await rig.submit(prompt="x"))
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "approval_expired")


async def test_a_cancel_that_comes_with_the_wait_ends_the_run(rig: Rig) -> None:
    class Cancelled(Asks):
        async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
            # The mark alone, as if the message to the worker were still on its way.
            await rig.redis.command("HSET", f"run:{context.run.id}", "cancel", "1")
            return await super().work(context, draining)

    rig.worker(strategy=Cancelled(), lease_s=60)
    record = await rig.ended(await rig.submit(prompt="x"))
    assert record.status is Status.CANCELLED


async def test_a_strategy_that_asks_too_much_fails_its_run_alone(rig: Rig) -> None:
    class Greedy(Asks):
        async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
            await ask(context, "input:0:0", [self.request(context.run.id, number) for number in range(99)])
            raise AssertionError

    rig.worker(strategy=Greedy())
    record = await rig.ended(await rig.submit(prompt="x"))
    assert record.error
    assert record.error.code == "internal_error"


async def test_a_flushed_result_is_stored_before_once_returns(rig: Rig) -> None:
    stored = []

    class Looks:
        async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
            async def call() -> int:
                return 1

            for key, flush in (("one", False), ("two", True)):
                await context.once(key, int, call, flush=flush)
                stored.append(sorted(await rig.store.journal(context.run.id)))
            raise StepFailed(RunError(code="seen", message="enough"))

    rig.worker(strategy=Looks())
    await rig.ended(await rig.submit(prompt="x"))
    assert stored == [[], ["one", "two"]]


class Listens:
    """Strategy of `turns` exchanges, each of which reads its messages; it ends when no message has come since."""

    def __init__(self, turns: int = 1) -> None:
        self.turns = turns
        self.heard: list[list[str]] = []
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.answers: list[str | None] = []

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        heard: list[str] = []
        number = 0
        answered = 0

        async def listen() -> None:
            nonlocal answered
            inbox = await read_inbox(context, f"inbox:{number}", f"model:{number}", answered)
            answered = inbox.interrupt or answered
            heard.extend(message.text for message in inbox.messages)

        while number < self.turns or context.knows(f"inbox:{number}") or number == 0:
            await listen()

            async def model() -> int:
                self.reached.set()
                await self.go.wait()
                return 1

            await context.once(f"model:{number}", int, model, flush=True)
            number += 1
        await listen()
        self.answers = [answer.input for answer in context.run.answers.values()]
        self.heard.append(heard)
        return {"heard": heard}


async def test_messages_at_any_moment_are_heard_once(rig: Rig) -> None:
    first = Listens(2)
    worker = rig.worker(strategy=first)
    run_id = await rig.submit(prompt="x")
    await rig.store.message(run_id, "one", by="ada", token="1")
    await first.reached.wait()
    await rig.store.message(run_id, "two", by="ada", token="2")
    await worker.killed()
    await rig.expire_lease(run_id)
    await rig.store.message(run_id, "three", by="ada", token="3")
    second = Listens(2)
    second.go.set()
    rig.worker(strategy=second)
    result = (await rig.ended(run_id)).result
    assert result
    assert sorted(result["heard"]) == ["one", "three", "two"]
    assert (await rig.store.message(run_id, "late", by="ada", token="4"))[0] is Outcome.REFUSED


async def test_a_message_that_comes_with_the_end_is_heard_by_the_next_claim(rig: Rig) -> None:
    class Ends(Listens):
        async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
            result = await super().work(context, draining)
            if len(self.heard) == 1:
                # After the last look, before the end is written.
                await rig.store.message(context.run.id, "stop", by="ada", token="1")
            return result

    ends = Ends()
    ends.go.set()
    rig.worker(strategy=ends)
    run_id = await rig.submit(prompt="x", max_attempts=1)
    assert (await rig.ended(run_id)).result == {"heard": ["stop"]}
    attempts = await rig.store.attempts(run_id)
    assert [(each.attempt, each.outcome) for each in attempts] == [(1, "message"), (1, "succeeded")]
    kinds = await rig.kinds(run_id)
    assert kinds == [
        "run.started",
        "message.received",
        "run.requeued",
        "run.resumed",
        "run.finished",
    ]


async def test_a_strategy_that_reads_no_messages_ends_all_the_same(rig: Rig) -> None:
    class Deaf:
        async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
            return {}

    run_id = await rig.submit(prompt="x")
    await rig.store.message(run_id, "hello", by="ada", token="1")
    rig.worker(strategy=Deaf())
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED


async def test_an_interrupt_stops_the_work_and_lets_the_run_wait(rig: Rig) -> None:
    listens = Listens()
    rig.worker(strategy=listens)
    run_id = await rig.submit(prompt="x", max_attempts=1)
    await listens.reached.wait()
    await rig.store.interrupt(run_id)
    request = await waits(rig, run_id)
    listens.go.set()
    await rig.store.resume(run_id, {request: GivenAnswer(input="go on")}, by="ada", token="t")
    record = await rig.ended(run_id)
    assert (record.status, record.attempt) == (Status.SUCCEEDED, 1)
    assert listens.answers == ["go on"]
    assert record.result == {"heard": ["go on"]}


async def test_a_queued_run_that_is_interrupted_waits_as_soon_as_it_is_claimed(rig: Rig) -> None:
    run_id = await rig.submit(prompt="x")
    await rig.store.interrupt(run_id)
    rig.worker(strategy=Listens())
    await waits(rig, run_id)


async def test_lost_replies_to_the_writes_of_a_waiting_run_change_nothing(rig: Rig) -> None:
    lost: Counter[str] = Counter()

    def loses(name: str) -> bool:
        lost[name] += 1
        return name in {"wait", "emit", "finish"} and lost[name] % 2 == 1

    asks = Asks(2)
    rig.worker(strategy=asks, loses=loses)
    run_id = await rig.submit(prompt="x", max_attempts=1)
    first = await waits(rig, run_id)
    await rig.store.resume(run_id, {first: YES}, by="ada", token="1")

    async def asked_again() -> bool:
        waiting = (await rig.store.head(run_id)).waiting
        return waiting is not None and waiting.requests[0].id != first

    await until(asked_again, "the second request is open")
    await rig.store.resume(run_id, {await waits(rig, run_id): YES}, by="ada", token="2")
    assert (await rig.ended(run_id)).result == {"results": ["made", "made"]}
    assert asks.made == {"0": 1, "1": 1}
    assert (await rig.kinds(run_id)).count("run.waiting") == 2
