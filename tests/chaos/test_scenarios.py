"""Single faults, each injected at the worst time."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from swissbrain.errors import ApiError
from tests.chaos.load import eventually
from tests.chaos.plans import effect, hang, shell
from tests.chaos.processes import Process, now_ms
from tests.chaos.proxy import Mode
from tests.chaos.scenario_helpers import (
    TIMEOUT_S,
    create_run,
    effect_steps,
    is_type,
    read_log,
    wait_for_end,
    wait_for_event,
    wait_for_program,
    worker_of,
    workspace,
)
from tests.chaos.site import ChaosSite
from tests.chaos.worker import LEASE_S
from tests.support.faulty_s3 import faulty_s3, refused
from tests.support.processes import children_of
from tests.support.waiting import wait_until


def test_a_run_of_a_killed_worker_is_continued_by_another_worker(site: ChaosSite) -> None:
    for name in ("a", "b"):
        site.worker(name)
    run_id = create_run(site, effect(), shell("echo started; sleep 4; echo done"), effect())
    first = wait_for_event(site, run_id, is_type("run.started"), "a worker starts the run")
    wait_for_program(site, run_id)

    killed_ms = now_ms()
    site.workers[worker_of(first)].end(signal.SIGKILL)

    resumed = wait_for_event(site, run_id, is_type("run.resumed"), "the other worker resumes the run")

    assert int(str(resumed.data["fence"])) > int(str(first.data["fence"]))
    assert worker_of(resumed) != worker_of(first)
    assert resumed.ts - killed_ms < (LEASE_S + 10) * 1000

    events = wait_for_end(site, run_id)
    assert sum(map(is_type("step.finished"), events)) == 3
    assert effect_steps(site, run_id) == ["step-0", "step-2"]


def test_a_worker_frozen_past_its_lease_writes_nothing_and_takes_new_runs(site: ChaosSite) -> None:
    for name in ("a", "b"):
        site.worker(name)
    run_id = create_run(site, effect(), shell("echo started; sleep 2; echo once >> chain.txt"), effect())
    first = wait_for_event(site, run_id, is_type("run.started"), "a worker starts the run")
    wait_for_program(site, run_id)
    frozen = site.workers.pop(worker_of(first))

    try:
        frozen.send(signal.SIGSTOP)
        events, files = wait_for_end(site, run_id), workspace(site, run_id)
        assert worker_of(next(filter(is_type("run.resumed"), events))) != frozen.name
        assert files == {"chain.txt": b"once\n"}

        site.remove_workers()
    finally:
        site.workers[frozen.name] = frozen
        frozen.send(signal.SIGCONT)

    wait_until(lambda: has_abandoned(frozen, run_id), "the frozen worker abandons the run", TIMEOUT_S)

    assert read_log(site, run_id) == events
    assert workspace(site, run_id) == files
    assert effect_steps(site, run_id) == ["step-0", "step-2"]

    next_run = create_run(site, effect(), shell("true"))
    assert worker_of(wait_for_end(site, next_run)[0]) == frozen.name
    assert frozen.starts == 1


def test_a_worker_whose_event_loop_hangs_past_its_lease_writes_nothing_more(site: ChaosSite) -> None:
    for name in ("a", "b"):
        site.worker(name)
    wait_until(lambda: blocked_clients(site) == 2, "both workers wait for runs", TIMEOUT_S)
    run_id = create_run(
        site, effect(), hang(2 * LEASE_S), effect(number=1, seconds=LEASE_S), shell("echo once >> chain.txt")
    )
    hung = site.workers[worker_of(wait_for_event(site, run_id, is_type("run.started"), "a worker starts the run"))]
    (other,) = set(site.workers.values()) - {hung}

    events, record = wait_for_end(site, run_id), site.record(run_id)

    assert worker_of(next(filter(is_type("run.resumed"), events))) == other.name

    wait_until(lambda: has_abandoned(hung, run_id), "the hung worker abandons the run", TIMEOUT_S)
    other.end()
    assert worker_of(wait_for_end(site, create_run(site, effect()))[0]) == hung.name

    assert (read_log(site, run_id), site.record(run_id)) == (events, record)
    assert workspace(site, run_id) == {"chain.txt": b"once\n"}
    assert effect_steps(site, run_id) == ["step-0", "step-2"]


def test_a_second_sigterm_ends_the_grace_period(site: ChaosSite) -> None:
    worker = site.worker("a", lease_s=60, WORKER_GRACE_S="600")
    run_id = create_run(site, effect(), shell("echo started; sleep 600"))
    wait_for_program(site, run_id)
    worker.send(signal.SIGTERM)
    wait_until(lambda: "worker.draining" in worker.log(), "the worker drains", TIMEOUT_S)

    assert worker.is_alive()
    assert children_of(worker.pid)

    worker.end(signal.SIGTERM, TIMEOUT_S)
    assert worker.exit_code() == 0
    assert read_log(site, run_id)[-1].data["reason"] == "drained"

    with site.client() as client:
        run = client.get_run(run_id)
        client.cancel(run_id)
    assert (run.status, run.attempt) == ("queued", 0)


def test_a_rolling_restart_loses_and_repeats_no_step_and_counts_no_attempt(site: ChaosSite) -> None:
    for name in ("a", "b"):
        site.worker(name, lease_s=60)
    plan = [effect(), shell("sleep 0.3"), effect(), shell("sleep 0.3"), effect()]
    run_ids = [create_run(site, *plan) for _ in range(12)]

    for name in ("a", "b"):
        wait_for_event(site, run_ids[6], lambda _: True, "the runs are being executed")
        worker = site.workers[name]
        worker.end(signal.SIGTERM, TIMEOUT_S)
        worker.start()

    for run_id in run_ids:
        events = wait_for_end(site, run_id)
        assert effect_steps(site, run_id) == ["step-0", "step-2", "step-4"]
        assert {event.data["reason"] for event in filter(is_type("run.requeued"), events)} <= {"drained"}
        with site.client() as client:
            assert client.get_run(run_id).attempt == 1


@pytest.mark.parametrize("mode", [Mode.DISCONNECT, Mode.STALL])
def test_a_disconnected_worker_stops_its_tool_and_another_worker_continues_the_run(site: ChaosSite, mode: Mode) -> None:
    proxy = site.proxies.proxy(site.config.ports.redis)
    disconnected = site.worker("a", proxy=proxy, REDIS_TIMEOUT_S="10")
    until_s = time.time() + 10
    program = f"echo started; while [ $(date +%s) -lt {until_s:.0f} ]; do echo x; sleep 0.2; done"
    run_id = create_run(site, shell(program))
    wait_for_program(site, run_id)
    site.worker("b")

    disconnected_s = time.time()
    proxy.behave(mode)

    wait_until(lambda: not children_of(disconnected.pid), "the program has been killed")

    assert time.time() - disconnected_s < LEASE_S + 6

    events = wait_for_end(site, run_id)
    # The last `run.resumed`: so short a lease may have expired before the disconnection too.
    assert worker_of([*filter(is_type("run.resumed"), events)][-1]) == "b"

    proxy.behave(Mode.PASS)
    site.workers["b"].end()
    assert worker_of(wait_for_end(site, create_run(site, effect()))[0]) == "a"


def test_an_idle_worker_and_a_live_stream_recover_from_a_kill_of_redis(site: ChaosSite) -> None:
    with site.client() as client, ThreadPoolExecutor(1) as threads:
        site.worker("a", slots=2)
        run_id = create_run(site, shell("echo started; sleep 6; echo done"))
        followed = threads.submit(lambda: list(client.events(run_id)))
        wait_for_program(site, run_id)
        site.worker("b", lease_s=60)
        wait_until(lambda: blocked_clients(site) == 2, "both workers wait for runs", timeout_s=TIMEOUT_S)

        before = site.stack.pids["redis"]
        site.kill_part("redis")
        wait_until(lambda: site.stack.pids.get("redis", before) != before, "Redis is restarted", TIMEOUT_S)
        site.heal()

        wait_for_end(site, create_run(site, effect()))

        assert followed.result(TIMEOUT_S) == wait_for_end(site, run_id)


@pytest.mark.parametrize("mode", [Mode.STALL, Mode.DROP_REPLIES])
def test_an_idle_worker_recovers_from_half_open_connections(site: ChaosSite, mode: Mode) -> None:
    site.worker("a", lease_s=60)
    wait_until(lambda: blocked_clients(site) == 1, "the worker waits", timeout_s=TIMEOUT_S)
    site.redis_proxy.behave(mode)
    run_id = create_run(site, effect())
    wait_until(lambda: not blocked_clients(site), "the wake token is lost", timeout_s=TIMEOUT_S)
    site.redis_proxy.behave(Mode.PASS)
    assert worker_of(wait_for_end(site, run_id)[0]) == "a"


def test_a_run_does_not_succeed_before_its_files_are_stored(site: ChaosSite) -> None:
    with faulty_s3(site.config.s3) as store:
        site.worker("a", lease_s=60, S3_ENDPOINT_URL=str(store.settings.endpoint_url))
        # Not before the worker has checked the store.
        wait_for_end(site, create_run(site, effect()))
        store.then("PUT", *[refused(HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")] * 3)
        run_id = create_run(site, effect(), shell("echo one >> chain.txt"), shell("echo two >> chain.txt"), effect())
        events = wait_for_end(site, run_id)

    assert [event.data["reason"] for event in filter(is_type("run.requeued"), events)] == ["files_unavailable"]
    assert [event.step for event in filter(is_type("step.finished"), events)] == [0, 1, 2, 3]
    assert effect_steps(site, run_id) == ["step-0", "step-3"]
    assert workspace(site, run_id) == {"chain.txt": b"one\ntwo\n"}


REFUSALS = {
    "read-only as during a failover": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    "memory full": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "1gb"]),
}


def create_run_once_accepted(site: ChaosSite, *steps: dict[str, object]) -> str:
    """Create a run; repeat the request while the API answers that Redis has no memory left."""

    def attempt() -> str | None:
        try:
            return create_run(site, *steps)
        except ApiError as exc:
            if exc.status != HTTPStatus.INSUFFICIENT_STORAGE:
                raise
            return None

    return eventually(attempt)


@pytest.mark.parametrize("reason", REFUSALS)
def test_no_run_fails_while_redis_refuses_writes(site: ChaosSite, reason: str) -> None:
    begin, end = REFUSALS[reason]
    worker = site.worker("a", lease_s=60, slots=2)
    with ThreadPoolExecutor(1) as threads:
        effects = [effect(number, 0.1) for number in range(5)]
        running = create_run(site, shell("echo started; sleep 1; seq 20"), *effects)
        wait_for_program(site, running)

        site.redis_command(*begin)
        try:
            delayed = threads.submit(create_run_once_accepted, site, effect())
            time.sleep(3)
        finally:
            site.redis_command(*end)

        wait_for_end(site, delayed.result(TIMEOUT_S))
    events = wait_for_end(site, running)

    assert effect_steps(site, running) == [f"step-{number}" for number in range(1, 6)]
    assert not list(filter(is_type("run.resumed"), events))
    assert worker.is_alive()


def test_requests_that_are_executed_twice_take_effect_once(site: ChaosSite) -> None:
    site.worker("a")
    proxies = (site.gateway_proxy, site.redis_proxy)
    before = [proxy.duplicated for proxy in proxies]
    for proxy in proxies:
        proxy.behave(Mode.DUPLICATE)

    with site.client(second=True) as client:
        plan = [effect(), shell("seq 100; echo once >> chain.txt; test -e seen || { touch seen; exit 1; }"), effect()]
        run_ids = [client.create_run(plan=plan, max_attempts=20).run_id for _ in range(4)]
        cancelled = client.create_run(plan=[shell("echo started; sleep 600")], max_attempts=20).run_id
        wait_for_program(site, cancelled)
        client.cancel(cancelled)
        wait_for_end(site, cancelled, "cancelled")

        for proxy in proxies:
            proxy.behave(Mode.DUPLICATE, delay_s=0.1)
        for run_id in run_ids:
            wait_for_end(site, run_id, "failed")
            client.retry(run_id)

        for run_id in run_ids:
            assert [event.type for event in wait_for_end(site, run_id, ends=2)].count("run.retried") == 1
            assert effect_steps(site, run_id) == ["step-0", "step-2"]
            assert workspace(site, run_id) == {"chain.txt": b"once\nonce\n", "seen": b""}

        fork = client.fork(run_ids[0], 2).run_id
        wait_for_end(site, fork)
        assert effect_steps(site, fork) == ["step-2"]
        assert {run.run_id for run in client.runs(status="succeeded")} >= {*run_ids, fork}

    assert all(proxy.duplicated > count + 10 for proxy, count in zip(proxies, before, strict=True))


def blocked_clients(site: ChaosSite) -> int:
    return int(site.redis_command("INFO", "clients").partition("blocked_clients:")[2].split()[0])


def has_abandoned(worker: Process, run_id: str) -> bool:
    """Return whether the worker has logged that it abandoned the run."""
    return f'"run_id":"{run_id}"' in worker.log().partition("run.abandoned")[2]
