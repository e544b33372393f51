"""Requests of waiting runs: answers by id, expiry, and the attempts that a wait does not count."""

import pytest

from infra.contract.events import RunWaiting
from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.requests import MAX_EXPIRY_MS, MAX_REQUESTS, GivenAnswer, OpenRequest, request_id
from infra.contract.runs import RECORD_VERSION
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, LEASE_MS, USER, Driver, expire_request
from tests.support import events as support
from tests.support.command_counts import billed_commands
from tests.support.logs import events_in_redis
from tests.support.requests import YES, answers, approval, in_ms, question


async def waiting(driver: Driver, *requests: OpenRequest) -> str:
    """Create a run that waits with these requests."""
    run_id = await driver.create()
    _, lease = await driver.claim()
    assert await driver.store.wait(lease, Writes(), requests) is Outcome.OK
    return run_id


async def resume(driver: Driver, run_id: str, given: dict[str, GivenAnswer], token: str = "t") -> Outcome:
    return (await driver.store.resume(run_id, given, by=USER, token=token))[0]


async def test_a_wait_counts_no_attempt(driver: Driver) -> None:
    run_id = await driver.create()
    for number in range(5):
        claim, lease = await driver.claim()
        assert claim.run.attempt == 1
        await driver.store.wait(lease, Writes(), [question(f"q{number}")])
        assert await resume(driver, run_id, answers(f"q{number}"), f"t{number}") is Outcome.OK
    await driver.claim(lease_ms=1)
    await driver.let_lease_expire(1)
    claim, _ = await driver.claim()
    assert (claim.run.id, claim.run.attempt) == (run_id, 2)


async def test_an_old_answer_does_not_reach_a_new_question(driver: Driver) -> None:
    run_id = await waiting(driver, question("q1"))
    await resume(driver, run_id, answers("q1"))
    claim, lease = await driver.claim()
    assert claim.run.answers["q1"].input == "yes"
    await driver.store.wait(lease, Writes(), [approval("a2")])
    await driver.store.cancel(run_id)
    await driver.store.retry(run_id, token="again")
    claim, _ = await driver.claim()
    assert claim.run.answers == {}


async def test_an_answer_names_its_request(driver: Driver) -> None:
    run_id = await waiting(driver, question("q1"))
    await resume(driver, run_id, answers("q1"), "first click")
    _, lease = await driver.claim()
    await driver.store.wait(lease, Writes(), [approval("a2")])
    before = await driver.dump()
    reply = await driver.store.resume(run_id, answers("q1"), by=USER, token="second click")
    assert reply == (Outcome.REFUSED, Status.WAITING, ["a2"])
    assert await driver.dump() == before
    assert await resume(driver, run_id, answers("q1"), "first click") is Outcome.SAME


async def test_a_run_continues_once_every_request_has_an_answer(driver: Driver) -> None:
    run_id = await waiting(driver, question("q"), approval("a"))
    assert await driver.store.resume(run_id, {"a": YES}, by="bob", token="1") == (Outcome.OK, Status.WAITING, [])
    assert await resume(driver, run_id, {"a": YES}, "2") is Outcome.REFUSED
    assert await resume(driver, run_id, {"a": YES, **answers("q")}, "3") is Outcome.REFUSED
    head = await driver.store.head(run_id)
    assert head.waiting
    assert [request.id for request in head.waiting.requests] == ["q"]

    assert await driver.store.resume(run_id, answers("q"), by=USER, token="4") == (Outcome.OK, Status.QUEUED, [])
    claim, _ = await driver.claim()
    given = claim.run.answers
    assert (given["a"].approve, given["a"].by, given["q"].input, given["q"].by) == (True, "bob", "yes", USER)
    assert all(abs(answer.at_ms - in_ms(0)) < 60_000 for answer in given.values())
    assert claim.run.waiting is None
    assert (await driver.store.depths()).waiting == 0


async def test_a_waiting_run_shows_its_requests_and_logs_them(driver: Driver) -> None:
    asked = [question("q", "Where to?"), approval("a", on_expiry="deny")]
    run_id = await waiting(driver, *asked)
    head = await driver.store.head(run_id)
    assert head.waiting
    assert head.waiting.requests == asked
    assert abs(head.waiting.since_ms - in_ms(0)) < 60_000
    logged = (await events_in_redis(driver.store, run_id))[-1]
    support.check(logged)
    assert (logged.type, logged.data["question"]) == (RunWaiting.TYPE, "Where to?")
    assert logged.data["requests"][1]["args"] == {"command": "rm -rf /", "empty": [], "ratio": 0.1}
    assert (await driver.store.depths()).waiting == 1


async def test_each_answer_is_logged_with_its_request_and_who_gave_it(driver: Driver) -> None:
    run_id = await waiting(driver, question("q"), approval("a"))
    no = GivenAnswer(approve=False, comment="too risky")
    await resume(driver, run_id, {"a": no, **answers("q", text="home")})
    events = await events_in_redis(driver.store, run_id, after=2)
    for event in events:
        support.check(event)
    assert [event.data for event in events] == [
        {"request": "a", "decision": "denied", "by": USER, "comment": "too risky"},
        {"request": "q", "decision": "answered", "by": USER, "input": "home"},
    ]


async def test_long_requests_are_truncated_but_keep_their_ids(driver: Driver) -> None:
    text = "ü" * 20_000
    long = [
        OpenRequest(
            id=f"{number:064}",
            kind="approval",
            question=text,
            expires_ms=in_ms(60),
            on_expiry="deny",
            tool="shell",
            args={"command": text},
            choices=[text] * 20,
        )
        for number in range(MAX_REQUESTS)
    ]
    run_id = await waiting(driver, *long)
    head = await driver.store.head(run_id)
    assert head.waiting
    shown = [(each.id, each.tool, each.expires_ms) for each in head.waiting.requests]
    assert shown == [(each.id, each.tool, each.expires_ms) for each in long]
    support.check((await events_in_redis(driver.store, run_id))[-1])


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [question("q")] * 2,
        [question(f"q{number}") for number in range(MAX_REQUESTS + 1)],
        [question("a b")],
        [question("q", expires_s=MAX_EXPIRY_MS / 1000 + 3600)],
    ],
)
async def test_a_run_waits_with_a_bounded_number_of_valid_requests(driver: Driver, requests: list[OpenRequest]) -> None:
    _, lease = await driver.in_status(Status.RUNNING)
    with pytest.raises(ValueError, match="request"):
        await driver.store.wait(lease, Writes(), requests)


async def test_a_run_whose_cancel_was_requested_does_not_begin_to_wait(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await driver.store.cancel(run_id)
    before = await driver.dump()
    assert await driver.store.wait(lease, Writes(), [question()]) is Outcome.REFUSED
    assert await driver.dump() == before


async def test_an_expired_request_is_denied(driver: Driver, redis: Redis) -> None:
    run_id = await waiting(driver, approval("a", on_expiry="deny"), question("q"))
    await expire_request(redis, run_id, "a")
    before = await driver.dump()
    assert await resume(driver, run_id, {"a": YES}) is Outcome.REFUSED
    assert await driver.dump() == before

    assert (await driver.store.claim("w", 1, lease_ms=LEASE_MS)).claims == []
    head = await driver.store.head(run_id)
    assert head.waiting
    assert [request.id for request in head.waiting.requests] == ["q"]
    await resume(driver, run_id, answers("q"))
    claim, _ = await driver.claim()
    denied = claim.run.answers["a"]
    assert (denied.expired, denied.approve, denied.by) == (True, None, None)
    events = await events_in_redis(driver.store, run_id, after=2)
    assert events[0].data == {"request": "a", "decision": "expired"}


async def test_the_last_expiry_queues_the_run_and_the_same_claim_grants_it(driver: Driver, redis: Redis) -> None:
    run_id = await waiting(driver, approval("a", on_expiry="deny"))
    await expire_request(redis, run_id, "a")
    claim, _ = await driver.claim()
    assert (claim.run.id, claim.run.attempt) == (run_id, 1)
    assert (await driver.store.depths()).pending == 0


@pytest.mark.parametrize(
    ("request_", "code"), [(question("r"), "question_expired"), (approval("r"), "approval_expired")]
)
async def test_an_expired_request_fails_the_run(driver: Driver, redis: Redis, request_: OpenRequest, code: str) -> None:
    run_id = await waiting(driver, request_)
    await expire_request(redis, run_id, "r")
    await driver.store.claim("w", 1, lease_ms=LEASE_MS)
    head = await driver.store.head(run_id)
    assert head.status is Status.FAILED
    assert head.error
    assert head.error.code == code
    assert (await driver.store.depths()).waiting == 0
    assert await driver.store.retry(run_id, token="t") == (Outcome.OK, Status.QUEUED)


async def test_claims_say_when_the_next_request_expires_and_polls_are_not_needed(driver: Driver) -> None:
    await waiting(driver, question("q", expires_s=3600))
    await waiting(driver, question("q", expires_s=60))
    claimed = await driver.store.claim("w", 1, lease_ms=LEASE_MS)
    assert claimed.next_ms is not None
    assert 50_000 < claimed.next_ms <= 60_000
    assert (await driver.store.depths()).delayed == 0


async def test_a_damaged_record_does_not_keep_other_requests_from_expiring(driver: Driver, redis: Redis) -> None:
    damaged, fine = [await waiting(driver, approval("a", on_expiry="deny")) for _ in range(2)]
    for run_id in (damaged, fine):
        await expire_request(redis, run_id, "a")
    await redis.command("HSET", f"run:{damaged}", "requests", "[broken")
    claimed = await driver.store.claim("w", 5, lease_ms=LEASE_MS)
    assert [claim.run.id for claim in claimed.claims] == [fine]
    assert list(claimed.set_aside) == [damaged]
    depths = await driver.store.depths()
    assert (depths.waiting, depths.unreadable) == (0, 1)


async def test_one_claim_deals_with_a_bounded_number_of_expiries(driver: Driver, redis: Redis) -> None:
    runs = [await waiting(driver, approval("a", on_expiry="deny")) for _ in range(103)]
    for run_id in runs:
        await expire_request(redis, run_id, "a")
    claimed = await driver.store.claim("w", 0, lease_ms=LEASE_MS)
    depths = await driver.store.depths()
    assert (depths.waiting, depths.ready, depths.pending) == (3, 100, 100)
    assert claimed.next_ms == 0
    await driver.store.claim("w", 0, lease_ms=LEASE_MS)
    assert (await driver.store.depths()).ready == 103


async def test_an_expiry_that_an_older_worker_has_overlooked_is_found_when_a_worker_joins(
    driver: Driver, redis: Redis
) -> None:
    run_id = await waiting(driver, approval("a", on_expiry="deny"))
    await expire_request(redis, run_id, "a")
    await redis.command("DEL", "jobs:delayed")
    assert (await driver.store.claim("w", 1, lease_ms=LEASE_MS)).claims == []
    (claim,) = (await driver.store.claim("new", 1, lease_ms=LEASE_MS, alive=True)).claims
    assert claim.run.id == run_id


async def test_a_run_that_has_waited_is_left_to_workers_that_know_requests(driver: Driver, redis: Redis) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await redis.command("HSET", f"run:{run_id}", "v", 1)
    await driver.store.wait(Lease(run_id, lease.fence), Writes(), [question()])
    assert await redis.command("HGET", f"run:{run_id}", "v") == str(RECORD_VERSION)


def test_the_id_of_a_request_stands_for_run_place_tool_and_arguments() -> None:
    one = request_id("run_1", "tool:3:0", "shell", {"a": 1, "b": 2})
    assert one == request_id("run_1", "tool:3:0", "shell", {"b": 2, "a": 1})
    others = {
        request_id("run_2", "tool:3:0", "shell", {"a": 1, "b": 2}),
        request_id("run_1", "tool:3:1", "shell", {"a": 1, "b": 2}),
        request_id("run_1", "tool:3:0", "code", {"a": 1, "b": 2}),
        request_id("run_1", "tool:3:0", "shell", {"a": 1, "b": 3}),
    }
    assert len(others | {one}) == 5


async def test_a_run_that_waits_costs_claims_of_other_runs_nothing(driver: Driver, redis: Redis) -> None:
    async def cost_of_a_run() -> int:
        before = await billed_commands(redis)
        await driver.create()
        await redis.command("LPOP", "jobs:pending")
        claimed = await driver.store.claim("w", 4, lease_ms=LEASE_MS, token_taken=True)
        (claim,) = claimed.claims
        await driver.store.finish(Lease(claim.run.id, claim.run.fence), Status.SUCCEEDED, Writes(events=[END]))
        return (await billed_commands(redis) - before).total()

    alone = min([await cost_of_a_run() for _ in range(6)])
    await waiting(driver, question())
    assert min([await cost_of_a_run() for _ in range(6)]) == alone


async def test_a_wait_with_its_answer_and_the_next_claim_costs_at_most_forty_commands(
    driver: Driver, redis: Redis
) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim()
    costs = []
    for number in range(4):
        before = await billed_commands(redis)
        await driver.store.wait(lease, Writes(), [question(f"q{number}")])
        await resume(driver, run_id, answers(f"q{number}"), f"t{number}")
        _, lease = await driver.claim()
        costs.append((await billed_commands(redis) - before).total())
    assert min(costs) <= 40, costs
