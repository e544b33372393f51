"""One fault at a time, at the worst moment."""

import io
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from swissbrain.models import Event
from tests.chaos.plans import effect, shell
from tests.chaos.processes import children, now_ms
from tests.chaos.proxy import Mode
from tests.chaos.site import LEASE_S, Site, site
from tests.support.waiting import wait_until

GENEROUS_S = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.fixture
def place(whole: Site) -> Iterator[Site]:
    """The site without workers, and with nothing left of the test."""
    yield whole
    whole.heal()
    whole.remove_workers()
    wait_until(lambda: not whole.strays(), "no process is left", timeout_s=GENEROUS_S)


def log(place: Site, run_id: str) -> list[Event]:
    with place.client() as client:
        events = [event for event in client.logged(run_id) if isinstance(event, Event)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


def reached(place: Site, run_id: str, wanted: Callable[[Event], bool], what: str) -> Event:
    """The first event that is wanted, once it is there."""
    wait_until(lambda: any(map(wanted, log(place, run_id))), what, timeout_s=GENEROUS_S)
    return next(filter(wanted, log(place, run_id)))


def ended(place: Site, run_id: str, status: str = "succeeded") -> list[Event]:
    """The log once the run has ended like that."""
    with place.client() as client:
        wait_until(lambda: client.get_run(run_id).ended, "the run ends", timeout_s=GENEROUS_S)
        assert client.get_run(run_id).status == status
    events = log(place, run_id)
    assert [event.type for event in events].count("run.finished") == 1
    assert events[-1].type == "run.finished"
    return events


def create(place: Site, *steps: dict[str, object]) -> str:
    with place.client() as client:
        return client.create_run(plan=steps, max_attempts=20).run_id


def holder(event: Event) -> str:
    return str(event.data["worker"])


def says(text: str) -> Callable[[Event], bool]:
    return lambda event: event.type == "tool.output" and event.data["text"] == text


def is_type(kind: str) -> Callable[[Event], bool]:
    return lambda event: event.type == kind


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
    way = place.proxies.proxy(place.stack.site.ports.redis)
    lost = place.worker("a", proxy=way, REDIS_TIMEOUT_S="10")
    until_s = time.time() + 14
    run_id = create(place, shell(f"echo begun; while [ $(date +%s) -lt {until_s:.0f} ]; do echo x; sleep 0.2; done"))
    reached(place, run_id, says("begun"), "the program runs")
    place.worker("b")
    cut_s = time.time()
    way.behave(mode)
    wait_until(lambda: not children(lost.pid), "the program is dead")
    assert time.time() - cut_s < LEASE_S + 6
    events = ended(place, run_id)
    assert holder(next(filter(is_type("run.resumed"), events))) == "b"
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


def blocked_clients(place: Site) -> int:
    return int(place.ask_redis("INFO", "clients").partition("blocked_clients:")[2].split()[0])


def effect_steps(place: Site, run_id: str) -> list[str]:
    """The steps whose effects a run has left, in order."""
    lines = place.effects_file.read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith(run_id)]


def workspace(place: Site, run_id: str) -> dict[str, bytes]:
    """The files of a run."""
    found = {}
    with place.client() as client:
        for file in client.files(run_id):
            content = io.BytesIO()
            client.download(run_id, file.path, content)
            found[file.path] = content.getvalue()
    return found


def after(text: str, mark: str) -> str:
    return text.partition(mark)[2]
