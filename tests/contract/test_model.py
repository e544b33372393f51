"""Compares the scripts with a model under random interleavings of calls, some of them sent twice.

SWISSBRAIN_MODEL_EXAMPLES=5000 tries more interleavings, and different ones in each session.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from infra.contract.files import FileEntry, Input
from infra.contract.journal import STARTED
from infra.contract.keys import EXPIRIES
from infra.contract.log import TERMINAL_EVENT, NewEvent, Segment
from infra.contract.queue import ClaimSeq, Lease, Writes
from infra.contract.requests import OnExpiry
from infra.contract.runs import RunRecord, RunSpec
from infra.contract.states import TERMINAL, Outcome, Status
from infra.contract.usage import RunUsage
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.contract.driver import expire_request, keys_without_ttl, strings
from tests.contract.model import Model
from tests.support.logs import events_in_redis
from tests.support.requests import answers, question
from tests.support.run_store import RunStore

T = TypeVar("T")
EXAMPLES = os.environ.get("SWISSBRAIN_MODEL_EXAMPLES")
LEASE_MS = 3_600_000
CURRENCIES = {1: "CHF", 2: "USD"}
USER = "ada"
EVENT = NewEvent(ts=1, type="log")
PATHS = ["a", "a/b", "a b/ä%.csv"]
MAX_BYTES = 5
CHOICE = st.integers(min_value=0, max_value=10_000)
IDS = st.sets(st.sampled_from(["q1", "q2"]), min_size=1)
KEY = st.sampled_from([None, "a", "b", STARTED])
USED = st.integers(0, 2)
"""Input tokens of the exchange that a write reports; 0: it reports none."""


class Scripts(RuleBasedStateMachine):
    """Rules that each make one call of the store and the same call of the model, and compare the replies."""

    tcp: RedisTcpSettings

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = RedisTcp(self.tcp)
        self.store = RunStore(self.redis)
        self.model = Model()
        self.created = 0
        self.leases: list[tuple[str, int]] = []
        self.claimed: dict[tuple[str, int], RunRecord] = {}
        self.objects = 0
        self.stored: dict[tuple[str, str], Input] = {}
        self.last_call: Callable[[], None] | None = None
        self.processes = 1
        self.claim_seq = ClaimSeq("p1")
        self.claims: list[tuple[int, ClaimSeq]] = []
        self.do(self.redis.command("FLUSHALL"))

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.do(self.redis.close())
        self.runner.close()

    def call(self, once: Callable[[], None]) -> None:
        once()
        self.last_call = once

    def run_id(self, choice: int) -> str:
        """Return the id of a run that was created, perhaps deleted since, or of one that never existed."""
        return f"run_{choice % (self.created + 1)}"

    @precondition(lambda self: self.last_call is not None)
    @rule()
    def send_again(self) -> None:
        """Repeat the last call, as after a lost reply."""
        assert self.last_call
        self.last_call()

    @rule(start=st.booleans(), priority=st.integers(0, 8), max_attempts=st.integers(1, 3))
    def create(self, start: bool, priority: int, max_attempts: int) -> None:
        run_id = f"run_{self.created}"
        self.created += 1
        spec = RunSpec(prompt="x", priority=priority, max_attempts=max_attempts)

        def once() -> None:
            expected = self.model.create(run_id, priority, max_attempts, start=start)
            outcome, record = self.do(self.store.create(run_id, USER, spec, start=start, digest="d"))
            assert outcome is expected
            assert record
            assert record.status is self.model.runs[run_id].status

        self.call(once)

    @rule(choice=CHOICE, path=st.sampled_from(PATHS), size=st.integers(0, 3))
    def announce(self, choice: int, path: str, size: int) -> None:
        run_id = self.run_id(choice)

        def once() -> None:
            self.objects += 1
            file = Input(entry=FileEntry(key=f"k{self.objects}", size_bytes=size, modified_ms=0, sha256=f"{size}"))
            expected = self.model.announce(run_id, path, size, MAX_BYTES)
            call = self.store.announce(run_id, path, file, max_bytes=MAX_BYTES)
            if not isinstance(expected, Outcome):
                with pytest.raises(expected):
                    self.do(call)
                return
            outcome, _, stored = self.do(call)
            assert outcome is expected
            if outcome is Outcome.OK:
                assert stored
                assert stored.entry.key == file.entry.key
                self.stored[run_id, path] = stored
            elif outcome is Outcome.SAME:
                assert stored == self.stored[run_id, path]
            else:
                assert stored is None

        self.call(once)

    @rule(choice=CHOICE, stale=st.integers(0, 1))
    def start(self, choice: int, stale: int) -> None:
        run_id = self.run_id(choice)
        version = self.inputs_version(run_id) + stale

        def once() -> None:
            outcome, _ = self.do(self.store.start(run_id, inputs_version=version))
            assert outcome is self.model.start(run_id, version)

        self.call(once)

    def inputs_version(self, run_id: str) -> int:
        run = self.model.runs.get(run_id)
        return run.inputs_version if run else 0

    @rule(choice=CHOICE, name=st.sampled_from(["cancel", "mark_deleting", "delete"]))
    def change_status(self, choice: int, name: str) -> None:
        run_id = self.run_id(choice)

        def once() -> None:
            args = [run_id, USER] if name == "delete" else [run_id]
            outcome, _ = self.do(getattr(self.store, name)(*args))
            assert outcome is getattr(self.model, name)(run_id)

        self.call(once)

    @rule(choice=CHOICE, token=st.sampled_from("abc"), stale=st.sampled_from([0, 0, 0, 1]))
    def retry(self, choice: int, token: str, stale: int) -> None:
        run_id = self.run_id(choice)
        version = self.inputs_version(run_id) + stale

        def once() -> None:
            outcome, _ = self.do(self.store.retry(run_id, token=token, inputs_version=version))
            assert outcome is self.model.retry(run_id, token, version)

        self.call(once)

    @rule(choice=CHOICE, token=st.sampled_from("abcde"), ids=IDS)
    def resume(self, choice: int, token: str, ids: set[str]) -> None:
        run_id = self.run_id(choice)

        def once() -> None:
            outcome, status, open_ids = self.do(self.store.resume(run_id, answers(*ids), by=USER, token=token))
            before = self.model.runs.get(run_id)
            still = set(before.open) - before.overdue if before else set()
            assert outcome is self.model.resume(run_id, token, ids)
            if outcome is Outcome.REFUSED:
                assert set(open_ids) == still
            if outcome is Outcome.OK:
                assert status is self.model.runs[run_id].status

        self.call(once)

    @rule(choice=CHOICE, token=st.sampled_from("mnop"))
    def message(self, choice: int, token: str) -> None:
        run_id = self.run_id(choice)

        def once() -> None:
            outcome, _ = self.do(self.store.message(run_id, "hello", by=USER, token=token))
            assert outcome is self.model.message(run_id, token)

        self.call(once)

    @rule(choice=CHOICE)
    def interrupt(self, choice: int) -> None:
        run_id = self.run_id(choice)

        def once() -> None:
            outcome, _ = self.do(self.store.interrupt(run_id))
            assert outcome is self.model.interrupt(run_id)

        self.call(once)

    @precondition(lambda self: self.leases)
    @rule(choice=CHOICE, skip=st.integers(-1, 1))
    def read_messages(self, choice: int, skip: int) -> None:
        """Store an inbox in the journal, and mark its messages as read, in one write."""
        run_id, fence, batch = self.lease_and_batch(choice, skip)
        run = self.model.runs.get(run_id)
        numbers = list(range(run.read + 1, run.messages + 1)) if run else []
        writes = Writes(journal={"a": "1"}, read=numbers)

        def once() -> None:
            reply = self.do(self.store.emit(self.lease(run_id, fence, batch), writes))
            assert reply.outcome is self.model.emit(run_id, fence, batch, 0, "a", max(numbers, default=0))

        self.call(once)

    @rule(choice=CHOICE)
    def expire_request(self, choice: int) -> None:
        """Let one of the open requests of a waiting run expire."""
        waiting = [run for run in self.model.runs.values() if run.open]
        if not waiting:
            return
        run = waiting[choice % len(waiting)]
        name = sorted(run.open)[choice % len(run.open)]
        self.do(expire_request(self.redis, run.id, name))
        run.overdue.add(name)

    @rule(wanted=st.integers(0, 3), woken=st.booleans(), reply_lost=st.booleans())
    def claim(self, wanted: int, woken: bool, reply_lost: bool) -> None:
        """Claim. `reply_lost`: the worker does not know what was granted, so the next claim undoes this one."""
        seq = replace(self.claim_seq, number=self.claim_seq.number + 1)
        last_acked = seq.number - 1 if seq.last_acked is None else seq.last_acked
        self.claim_seq = seq if reply_lost else replace(seq, dead=())
        self.claim_seq = replace(self.claim_seq, last_acked=last_acked if reply_lost else None)
        self.claims.append((wanted, seq))
        self.call(lambda: self.claim_once(wanted, woken, seq))

    @rule()
    def restart_worker(self) -> None:
        """Replace the worker process by another one, which knows that its predecessors have ended."""
        self.processes += 1
        self.claim_seq = ClaimSeq(f"p{self.processes}", dead=(self.claim_seq.process, *self.claim_seq.dead)[:16])

    @precondition(lambda self: self.claims)
    @rule(choice=CHOICE)
    def claim_late(self, choice: int) -> None:
        """Execute an earlier claim late, as if it had been delayed or repeated by the network."""
        wanted, seq = self.claims[choice % len(self.claims)]
        self.claim_once(wanted, False, seq)

    def claim_once(self, wanted: int, woken: bool, seq: ClaimSeq) -> None:
        token_taken = woken and self.do(self.redis.command("LPOP", "jobs:pending")) is not None
        claimed = self.do(
            self.store.claim("w", wanted, lease_ms=LEASE_MS, token_taken=token_taken, seq=seq, alive=True)
        )
        granted = [(claim.run.id, claim.run.fence) for claim in claimed.claims]
        assert granted == self.model.claim(wanted, seq)
        for claim in claimed.claims:
            assert set(claim.run.answers) == self.model.runs[claim.run.id].answers
            held = self.model.runs[claim.run.id]
            assert [each.number for each in claim.messages] == list(range(held.read + 1, held.messages + 1))
            assert set(claim.journal) == self.model.runs[claim.run.id].journal
            assert claim.inputs.keys() == self.model.runs[claim.run.id].inputs.keys()
        self.leases += granted
        self.claimed |= {(claim.run.id, claim.run.fence): claim.run for claim in claimed.claims}
        assert self.do(self.redis.command("LLEN", "jobs:pending")) == len(self.model.ready())

    @precondition(lambda self: self.leases)
    @rule(choice=CHOICE)
    def expire(self, choice: int) -> None:
        run = self.model.runs.get(self.leases[choice % len(self.leases)][0])
        if run and run.leased:
            self.do(self.redis.command("ZADD", "jobs:leases", 1, run.id))
            run.expired = True

    @precondition(lambda self: self.leases)
    @rule(choices=st.lists(CHOICE, min_size=1, max_size=3))
    def renew(self, choices: list[int]) -> None:
        pairs = [self.leases[choice % len(self.leases)] for choice in choices]

        def once() -> None:
            replies = self.do(self.store.renew([Lease(*pair) for pair in pairs], lease_ms=LEASE_MS))
            assert [reply.outcome for reply in replies] == [self.model.renew(*pair) for pair in pairs]

        self.call(once)

    @precondition(lambda self: self.leases)
    @rule(choice=CHOICE, skip=st.integers(-1, 1), events=st.integers(0, 3), key=KEY, used=USED)
    def emit(self, choice: int, skip: int, events: int, key: str | None, used: int) -> None:
        run_id, fence, batch = self.lease_and_batch(choice, skip)
        writes = Writes(events=[EVENT] * events, journal={key: "1"} if key else {}, usage=usage(used))

        def once() -> None:
            reply = self.do(self.store.emit(self.lease(run_id, fence, batch), writes))
            assert reply.outcome is self.model.emit(run_id, fence, batch, events, key, used=used)
            if reply.outcome in {Outcome.OK, Outcome.SAME}:
                held = self.model.runs[run_id]
                assert reply.cancel == held.cancel
                assert reply.interrupt == (held.interrupt and not held.cancel)
                assert reply.messages == held.messages

        self.call(once)

    @precondition(lambda self: self.leases)
    @rule(
        choice=CHOICE, skip=st.integers(-1, 1), status=st.sampled_from(sorted(TERMINAL)), heard=st.booleans(), used=USED
    )
    def finish(self, choice: int, skip: int, status: Status, heard: bool, used: int) -> None:
        run_id, fence, batch = self.lease_and_batch(choice, skip)
        run = self.model.runs.get(run_id)
        read = run.messages if run and heard else 0
        writes = Writes(events=[NewEvent(ts=1, type=TERMINAL_EVENT, data={"status": status.value})], usage=usage(used))

        def once() -> None:
            outcome = self.do(self.store.finish(self.lease(run_id, fence, batch), status, writes, read=read))
            assert outcome is self.model.finish(run_id, fence, batch, status, read, used)

        self.call(once)

    @precondition(lambda self: self.leases)
    @rule(choice=CHOICE, skip=st.integers(-1, 1), ids=IDS, on_expiry=st.sampled_from(["deny", "fail"]), used=USED)
    def wait(self, choice: int, skip: int, ids: set[str], on_expiry: OnExpiry, used: int) -> None:
        run_id, fence, batch = self.lease_and_batch(choice, skip)
        requests = [question(name, on_expiry=on_expiry) for name in sorted(ids)]
        writes = Writes(usage=usage(used))

        def once() -> None:
            outcome = self.do(self.store.wait(self.lease(run_id, fence, batch), writes, requests))
            assert outcome is self.model.wait(run_id, fence, batch, dict.fromkeys(ids, on_expiry), used)

        self.call(once)

    @precondition(lambda self: self.leases)
    @rule(choice=CHOICE, skip=st.integers(-1, 1), how=st.sampled_from(["drain", "burn", "unable"]), key=KEY, used=USED)
    def give_up_lease(self, choice: int, skip: int, how: str, key: str | None, used: int) -> None:
        run_id, fence, batch = self.lease_and_batch(choice, skip)
        writes = Writes(events=[EVENT], journal={key: "1"} if key else {}, usage=usage(used))

        def once() -> None:
            lease = self.lease(run_id, fence, batch)
            burn, unable = how == "burn", how == "unable"
            if unable:
                outcome = self.do(self.store.release_unable(lease, writes, delay_ms=0))
            else:
                outcome = self.do(self.store.release(lease, writes, delay_ms=0, burn=burn))
            assert outcome is self.model.release(run_id, fence, batch, burn=burn, unable=unable, key=key, used=used)

        self.call(once)

    @precondition(lambda self: self.leases)
    @rule(choice=CHOICE, share=st.integers(1, 3))
    def trim(self, choice: int, share: int) -> None:
        run_id, fence = self.leases[choice % len(self.leases)]
        run = self.model.runs.get(run_id)
        record = self.claimed[run_id, fence]
        last = max(1, run.seq // share if run else 1)

        def once() -> None:
            outcome = self.do(self.store.trim(record, [Segment(1, last, fence)]))
            assert outcome is self.model.trim(run_id, fence, last)

        self.call(once)

    def lease_and_batch(self, choice: int, skip: int) -> tuple[str, int, int]:
        """Return run and fence of a lease granted at some time, and a batch number: the next, a repeat, or a gap."""
        run_id, fence = self.leases[choice % len(self.leases)]
        run = self.model.runs.get(run_id)
        return run_id, fence, max(1, (run.batch if run else 0) + 1 + skip)

    @staticmethod
    def lease(run_id: str, fence: int, batch: int) -> Lease:
        lease = Lease(run_id, fence, USER)
        lease.batch = batch - 1
        return lease

    @invariant()
    def redis_holds_what_the_model_says(self) -> None:
        self.do(self.compare())

    async def compare(self) -> None:
        model, redis = self.model, self.redis
        assert strings(await redis.command("ZRANGE", "jobs:ready", 0, -1)) == model.ready()
        for key, members in (
            ("jobs:leases", {run.id for run in model.runs.values() if run.leased}),
            ("jobs:waiting", {run.id for run in model.runs.values() if run.status is Status.WAITING}),
            ("jobs:dead", {run.id for run in model.runs.values() if run.dead}),
            (f"user:{USER}:runs", set(model.runs)),
            ("jobs:workers", model.workers),
        ):
            assert set(strings(await redis.command("ZRANGE", key, 0, -1))) == members, key
        assert await keys_without_ttl(redis) == []
        soonest = strings(await redis.command("ZRANGE", "jobs:waiting", 0, 0, "WITHSCORES"))
        if soonest:
            wakes = await redis.command("ZSCORE", "jobs:delayed", EXPIRIES)
            assert wakes is not None
            assert float(str(wakes)) <= float(soonest[1])
        of_days = await self.store.usage(USER, 2)
        assert sum(filter(None, of_days.values()), RunUsage()) == added_up(model.used)
        for run in model.runs.values():
            record = await self.store.get(run.id)
            assert (record.usage or RunUsage()) == added_up(run.used)
            assert (record.unable, record.interrupt) == (run.unable, run.interrupt)
            assert set(record.answers) == run.answers
            open_ids = {request.id for request in record.waiting.requests} if record.waiting else set()
            assert open_ids == set(run.open)
            fields = await redis.command(
                "HMGET", f"run:{run.id}", "status", "attempt", "fence", "batch", "seq", "cancel"
            )
            assert strings(fields) == [
                run.status.value,
                *map(str, (run.attempt, run.fence, run.batch, run.seq, int(run.cancel))),
            ]
            assert set(await self.store.journal(run.id)) == run.journal
            inputs = await self.store.inputs(run.id)
            assert inputs.version == run.inputs_version
            assert {path: file.entry.size_bytes for path, file in inputs.files.items()} == run.inputs
            files = await self.store.files(run.id)
            assert {path: entry.size_bytes for path, entry in files.items()} == run.files
            assert all(entry.key == self.stored[run.id, path].entry.key for path, entry in files.items())
            assert (await self.store.log(run.id)).archived == run.archived
            events = await events_in_redis(self.store, run.id, after=run.archived)
            assert [event.seq for event in events] == list(range(run.archived + 1, run.seq + 1))
            if not run.archived:
                assert sum(event.type == TERMINAL_EVENT for event in events) == run.ends
            if run.status in TERMINAL and events:
                assert events[-1].type == TERMINAL_EVENT


def usage(used: int) -> RunUsage | None:
    """Return the usage of an exchange with so many input tokens; each number has its own currency."""
    return RunUsage(exchanges=1, input=used, costs={CURRENCIES[used]: 10 * used}) if used else None


def added_up(used: list[int]) -> RunUsage:
    costs = {CURRENCIES[each]: 10 * each * used.count(each) for each in set(used)}
    return RunUsage(exchanges=len(used), input=sum(used), costs=costs)


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_the_scripts_do_what_the_model_does(tcp: RedisTcpSettings) -> None:
    machine = type("Machine", (Scripts,), {"tcp": tcp})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(EXAMPLES or 20),
            stateful_step_count=40,
            derandomize=EXAMPLES is None,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
