"""One fault at a time, at the worst moment."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from tests.chaos.plans import effect, hang, shell
from tests.chaos.processes import now_ms
from tests.chaos.proxy import Mode
from tests.chaos.site import LEASE_S, Site
from tests.chaos.watching import (
    GENEROUS_S,
    create,
    effect_steps,
    ended,
    holder,
    is_type,
    log,
    reached,
    says,
    workspace,
)
from tests.support.faulty_s3 import faulty_s3, refused
from tests.support.processes import children_of
from tests.support.waiting import wait_until


def test_a_run_whose_worker_is_killed_goes_on_elsewhere(place: Site) -> None:
    for name in ("a", "b"):
        place.worker(name)
    run_id = create(place, effect(), shell("echo begun; sleep 4; echo over"), effect())
    first = reached(place, run_id, is_type("run.started"), "somebody begins")
    reached(place, run_id, says("begun"), "the program runs")
    killed_ms = now_ms()
    place.workers[holder(first)].end(signal.SIGKILL)
    resumed = reached(place, run_id, is_type("run.resumed"), "somebody else goes on")
    assert int(str(resumed.data["fence"])) > int(str(first.data["fence"]))
    assert holder(resumed) != holder(first)
    assert resumed.ts - killed_ms < (LEASE_S + 10) * 1000
    events = ended(place, run_id)
    assert sum(map(is_type("step.finished"), events)) == 3
    assert effect_steps(place, run_id) == ["step-0", "step-2"]


def test_a_zombie_writes_nothing_and_is_of_use_again(place: Site) -> None:
    for name in ("a", "b"):
        place.worker(name)
    run_id = create(place, effect(), shell("echo begun; sleep 2; echo once >> chain.txt"), effect())
    first = reached(place, run_id, is_type("run.started"), "somebody begins")
    reached(place, run_id, says("begun"), "the program runs")
    zombie = place.workers.pop(holder(first))
    try:
        zombie.send(signal.SIGSTOP)
        events, files = ended(place, run_id), workspace(place, run_id)
        assert holder(next(filter(is_type("run.resumed"), events))) != zombie.name
        assert files == {"chain.txt": b"once\n"}
        place.remove_workers()
    finally:
        place.workers[zombie.name] = zombie
        zombie.send(signal.SIGCONT)
    wait_until(lambda: f'"run_id":"{run_id}"' in after(zombie.log(), "run.abandoned"), "it lets go", GENEROUS_S)
    assert log(place, run_id) == events
    assert workspace(place, run_id) == files
    assert effect_steps(place, run_id) == ["step-0", "step-2"]
    again = create(place, effect(), shell("true"))
    assert holder(ended(place, again)[0]) == zombie.name
    assert zombie.starts == 1


def test_a_worker_whose_loop_hangs_past_its_lease_writes_nothing_after_that(place: Site) -> None:
    for name in ("a", "b"):
        place.worker(name)
    wait_until(lambda: blocked_clients(place) == 2, "both wait for runs", GENEROUS_S)
    run_id = create(
        place, effect(), hang(2 * LEASE_S), effect(number=1, seconds=LEASE_S), shell("echo once >> chain.txt")
    )
    hung = place.workers[holder(reached(place, run_id, is_type("run.started"), "somebody begins"))]
    (other,) = set(place.workers.values()) - {hung}
    events, record = ended(place, run_id), place.record(run_id)
    assert holder(next(filter(is_type("run.resumed"), events))) == other.name
    wait_until(lambda: f'"run_id":"{run_id}"' in after(hung.log(), "run.abandoned"), "it lets go", GENEROUS_S)
    other.end()
    assert holder(ended(place, create(place, effect()))[0]) == hung.name
    assert (log(place, run_id), place.record(run_id)) == (events, record)
    assert workspace(place, run_id) == {"chain.txt": b"once\n"}
    assert effect_steps(place, run_id) == ["step-0", "step-2"]


def test_a_second_signal_ends_the_grace(place: Site) -> None:
    worker = place.worker("a", lease_s=60, WORKER_GRACE_S="600")
    run_id = create(place, effect(), shell("echo begun; sleep 600"))
    reached(place, run_id, says("begun"), "the program runs")
    worker.send(signal.SIGTERM)
    wait_until(lambda: "worker.draining" in worker.log(), "it drains", GENEROUS_S)
    assert worker.is_alive()
    assert children_of(worker.pid)
    worker.end(signal.SIGTERM, GENEROUS_S)
    assert worker.exit_code() == 0
    assert log(place, run_id)[-1].data["reason"] == "drained"
    with place.client() as client:
        run = client.get_run(run_id)
        client.cancel(run_id)
    assert (run.status, run.attempt) == ("queued", 0)


def test_a_rolling_restart_loses_and_repeats_nothing_and_burns_no_attempt(place: Site) -> None:
    for name in ("a", "b"):
        place.worker(name, lease_s=60)
    run_ids = [create(place, effect(), shell("sleep 0.3"), effect(), shell("sleep 0.3"), effect()) for _ in range(12)]
    for name in ("a", "b"):
        reached(place, run_ids[6], lambda _: True, "the work goes on")
        worker = place.workers[name]
        worker.end(signal.SIGTERM, GENEROUS_S)
        worker.start()
    for run_id in run_ids:
        events = ended(place, run_id)
        assert effect_steps(place, run_id) == ["step-0", "step-2", "step-4"]
        assert {event.data["reason"] for event in filter(is_type("run.requeued"), events)} <= {"drained"}
        with place.client() as client:
            assert client.get_run(run_id).attempt == 1


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.STALL])
def test_a_worker_that_is_cut_off_stops_its_tool_and_the_run_goes_on_elsewhere(place: Site, mode: Mode) -> None:
    way = place.proxies.proxy(place.stack.config.ports.redis)
    lost = place.worker("a", proxy=way, REDIS_TIMEOUT_S="10")
    until_s = time.time() + 10
    run_id = create(place, shell(f"echo begun; while [ $(date +%s) -lt {until_s:.0f} ]; do echo x; sleep 0.2; done"))
    reached(place, run_id, says("begun"), "the program runs")
    place.worker("b")
    cut_s = time.time()
    way.behave(mode)
    wait_until(lambda: not children_of(lost.pid), "the program is dead")
    assert time.time() - cut_s < LEASE_S + 6
    events = ended(place, run_id)
    # The last: a lease this short may also have ended before the cut.
    assert holder([*filter(is_type("run.resumed"), events)][-1]) == "b"
    way.behave(Mode.PASS)
    place.workers["b"].end()
    assert holder(ended(place, create(place, effect()))[0]) == "a"


def test_an_idle_worker_and_a_live_stream_come_back_after_redis_was_killed(place: Site) -> None:
    with place.client() as client, ThreadPoolExecutor(1) as threads:
        place.worker("a", slots=2)
        run_id = create(place, shell("echo begun; sleep 6; echo over"))
        followed = threads.submit(lambda: list(client.events(run_id)))
        reached(place, run_id, says("begun"), "the program runs")
        place.worker("b", lease_s=60)
        wait_until(lambda: blocked_clients(place) == 2, "both workers wait for more", timeout_s=GENEROUS_S)
        before = place.stack.pids["redis"]
        place.kill_part("redis")
        wait_until(lambda: place.stack.pids.get("redis", before) != before, "Redis is started again", GENEROUS_S)
        place.heal()
        ended(place, create(place, effect()))
        assert followed.result(GENEROUS_S) == ended(place, run_id)


@pytest.mark.parametrize("mode", [Mode.STALL, Mode.DEAF])
def test_an_idle_worker_whose_connections_were_half_open_hears_again(place: Site, mode: Mode) -> None:
    place.worker("a", lease_s=60)
    wait_until(lambda: blocked_clients(place) == 1, "the worker waits", timeout_s=GENEROUS_S)
    place.redis_proxy.behave(mode)
    run_id = create(place, effect())
    wait_until(lambda: not blocked_clients(place), "the token has gone nowhere", timeout_s=GENEROUS_S)
    place.redis_proxy.behave(Mode.PASS)
    assert holder(ended(place, run_id)[0]) == "a"


def test_a_run_does_not_succeed_before_its_files_are_stored(place: Site) -> None:
    with faulty_s3(place.stack.config.s3) as store:
        place.worker("a", lease_s=60, S3_ENDPOINT_URL=str(store.settings.endpoint_url))
        store.then("PUT", *[refused(HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")] * 3)
        run_id = create(place, effect(), shell("echo one >> chain.txt"), shell("echo two >> chain.txt"), effect())
        events = ended(place, run_id)
    assert [event.data["reason"] for event in filter(is_type("run.requeued"), events)] == ["files_unavailable"]
    assert [event.step for event in filter(is_type("step.finished"), events)] == [0, 1, 2, 3]
    assert effect_steps(place, run_id) == ["step-0", "step-3"]
    assert workspace(place, run_id) == {"chain.txt": b"one\ntwo\n"}


REFUSALS = {
    "as during a failover": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    "its memory is full": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "1gb"]),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_while_redis_refuses_to_write_everything_waits_and_nothing_fails(place: Site, why: str) -> None:
    begin, end = REFUSALS[why]
    worker = place.worker("a", lease_s=60, slots=2)
    with ThreadPoolExecutor(1) as threads:
        under_way = create(place, shell("echo begun; sleep 1; seq 20"), *(effect(number, 0.1) for number in range(5)))
        reached(place, under_way, says("begun"), "the program runs")
        place.ask_redis(*begin)
        try:
            refused = threads.submit(create, place, effect())
            time.sleep(3)
        finally:
            place.ask_redis(*end)
        ended(place, refused.result(GENEROUS_S))
    events = ended(place, under_way)
    assert effect_steps(place, under_way) == [f"step-{number}" for number in range(1, 6)]
    assert not list(filter(is_type("run.resumed"), events))
    assert worker.is_alive()


def test_what_is_executed_twice_counts_once(place: Site) -> None:
    place.worker("a")
    proxies = (place.gateway_proxy, place.redis_proxy)
    before = [proxy.repeated for proxy in proxies]
    for proxy in proxies:
        proxy.behave(Mode.DUPLICATE)
    with place.client(far=True) as client:
        plan = [effect(), shell("seq 100; echo once >> chain.txt; test -e seen || { touch seen; exit 1; }"), effect()]
        run_ids = [client.create_run(plan=plan, max_attempts=20).run_id for _ in range(4)]
        doomed = client.create_run(plan=[shell("echo begun; sleep 600")], max_attempts=20).run_id
        reached(place, doomed, says("begun"), "the program runs")
        client.cancel(doomed)
        ended(place, doomed, "cancelled")
        for proxy in proxies:
            proxy.behave(Mode.DUPLICATE, delay_s=0.1)
        for run_id in run_ids:
            ended(place, run_id, "failed")
            client.retry(run_id)
        for run_id in run_ids:
            assert [event.type for event in ended(place, run_id, ends=2)].count("run.retried") == 1
            assert effect_steps(place, run_id) == ["step-0", "step-2"]
            assert workspace(place, run_id) == {"chain.txt": b"once\nonce\n", "seen": b""}
        fork = client.fork(run_ids[0], 2).run_id
        ended(place, fork)
        assert effect_steps(place, fork) == ["step-2"]
        assert {run.run_id for run in client.runs(status="succeeded")} >= {*run_ids, fork}
    assert all(proxy.repeated > count + 10 for proxy, count in zip(proxies, before, strict=True))


def blocked_clients(place: Site) -> int:
    return int(place.ask_redis("INFO", "clients").partition("blocked_clients:")[2].split()[0])


def after(text: str, mark: str) -> str:
    return text.partition(mark)[2]
