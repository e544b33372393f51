"""Waiting, batches, lists, steps and parts of logs against the real API."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra.contract.log import NewEvent
from infra.contract.states import Status
from swissbrain import ApiError, Client, Event, Gap, NewRun, Run, RunFailed, WaitTimeout, message
from tests.client.real_api import PLAN, Real
from tests.edge.stack import SimulatedWorker, note
from tests.support.waiting import wait_until


def test_a_wait_ends_with_the_run(real: Real, worker: SimulatedWorker, ada: Client) -> None:
    run_id = ada.create_run(PLAN).run_id
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ada.wait, run_id)
        lease = real.do(worker.claim())
        time.sleep(0.3)
        assert not waiting.done()
        real.do(worker.finish(lease))
        ended = time.monotonic()
        assert waiting.result(30).result == {"answer": 42}
        assert time.monotonic() - ended < 15  # and not the 20 s for which the API may hold the request
    assert ada.wait(run_id).status == "succeeded"


def test_a_wait_ends_when_the_run_waits_for_input(real: Real, worker: SimulatedWorker, ada: Client) -> None:
    run_id = ada.create_run(PLAN).run_id
    real.do(worker.wait(real.do(worker.claim())))
    assert ada.wait(run_id, timeout_s=10).status == "waiting"


def test_a_wait_ends_in_time(ada: Client) -> None:
    run_id = ada.create_run(PLAN).run_id
    begun = time.monotonic()
    with pytest.raises(WaitTimeout) as caught:
        ada.wait(run_id, timeout_s=1.5)
    assert 1.5 <= time.monotonic() - begun < 15
    assert caught.value.run.status == "queued"


def test_a_queued_run_tells_its_place(ada: Client) -> None:
    first, second = ada.create_run(PLAN), ada.create_run(PLAN, delay_s=100)
    place = ada.get_run(second.run_id).queue
    assert place
    assert (place.ahead_capped, place.begins_ms is not None) == (False, True)
    ada.cancel(first.run_id)
    assert ada.get_run(first.run_id).queue is None


def test_run_waits_for_a_failure(real: Real, worker: SimulatedWorker, ada: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ada.run, PLAN)
        wait_until(lambda: ada.queue().ready == 1, "the run is queued")
        real.do(worker.complete(status=Status.FAILED))
        with pytest.raises(RunFailed) as caught:
            running.result(20)
    assert caught.value.run.status == "failed"


def test_a_batch_answers_for_each_run_and_is_repeatable(ada: Client) -> None:
    batch: list[NewRun | dict[str, Any]] = [
        NewRun(plan=message("a"), idempotency_key="first", metadata={"n": "1"}),
        NewRun(prompt="x", priority=99),
        {"plan": [{"tool": "none"}]},
        NewRun(plan=[message("b")], start=False),
    ]
    made = ada.create_many(batch)
    assert [one.status for one in made] == ["queued", 422, 422, "created"]
    assert isinstance(made[0], Run)
    assert isinstance(made[2], ApiError)
    assert made[2].field == "$.plan[0].tool"
    (again,) = ada.create_many(batch[:1])
    assert isinstance(again, Run)
    assert again.run_id == made[0].run_id


def test_more_runs_than_a_batch_holds_are_created_and_listed_by_their_metadata(ada: Client) -> None:
    made = ada.create_many([NewRun(plan=PLAN, metadata={"n": str(n % 2), "all": "x"}) for n in range(130)])
    ids = [run.run_id for run in made if isinstance(run, Run)]
    assert len({*ids}) == 130
    assert {run.run_id for run in ada.runs(metadata={"all": "x"})} == {*ids}
    assert {run.run_id for run in ada.runs(metadata={"all": "x", "n": "1"})} == {*ids[1::2]}
    assert [*ada.runs(metadata={"all": "y"})] == []


def test_runs_are_listed_by_several_statuses_and_by_time(ada: Client) -> None:
    queued, created, cancelled = ada.create_run(PLAN), ada.create_run(PLAN, start=False), ada.create_run(PLAN)
    ada.cancel(cancelled.run_id)
    assert {run.run_id for run in ada.runs(status=["created", "cancelled"])} == {created.run_id, cancelled.run_id}
    assert {run.run_id for run in ada.runs(created_after_ms=created.created_ms)} >= {cancelled.run_id}
    assert [*ada.runs(created_before_ms=queued.created_ms - 10_000)] == []


def output(number: int, stream: str) -> NewEvent:
    return NewEvent(ts=1, type="tool.output", step=0, data={"stream": stream, "text": str(number)})


def seqs(items: list[Event | Gap]) -> list[int]:
    return [item.seq for item in items if isinstance(item, Event)]


def test_a_log_is_read_from_its_end(
    real: Real, worker: SimulatedWorker, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swissbrain.endpoints.EVENTS_PER_PAGE", 4)
    run_id = ada.create_run(PLAN).run_id
    assert ada.logs(run_id) == []
    lease = real.do(worker.claim())
    real.do(worker.emit(lease, *(note(number) for number in range(10))))
    real.do(worker.finish(lease))
    assert seqs(ada.logs(run_id, tail=3)) == [10, 11, 12]
    assert seqs(ada.logs(run_id, tail=10)) == [*range(3, 13)]
    assert seqs(ada.logs(run_id, tail=5, before=10)) == [5, 6, 7, 8, 9]
    assert seqs(ada.logs(run_id)) == [*range(1, 13)]
    assert seqs(ada.logs(run_id, tail=3, before=2)) == [1]


def test_filters_select_events_of_pages_and_streams(real: Real, worker: SimulatedWorker, ada: Client) -> None:
    run_id = ada.create_run(PLAN).run_id
    lease = real.do(worker.claim())
    real.do(worker.emit(lease, *(output(number, ("stdout", "stderr")[number % 2]) for number in range(10))))
    real.do(worker.finish(lease))
    assert seqs(ada.logs(run_id, step=0)) == [*range(2, 12)]
    assert seqs([*ada.logged(run_id, event_type=["run.started", "run.finished"])]) == [1, 12]
    assert seqs([*ada.events(run_id, stream="stderr")]) == [3, 5, 7, 9, 11]
    assert seqs([*ada.events(run_id, stream="stderr", tail=2)]) == [9, 11]
    assert seqs([*ada.events(run_id, tail=2)]) == [11, 12]
    assert [*ada.events(run_id, step=7)] == []


def test_a_filtered_stream_survives_the_end_of_its_connections(
    real: Real, worker: SimulatedWorker, ada: Client
) -> None:
    """Follow with a filter, over connections that the API ends every 0.3 s."""
    run_id = ada.create_run(PLAN).run_id
    lease = real.do(worker.claim())
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(lambda: seqs([*ada.events(run_id, stream="stderr")]))
        for number in range(12):
            real.do(worker.emit(lease, output(number, "stderr" if number % 4 == 0 else "stdout")))
            time.sleep(0.15)
        real.do(worker.finish(lease))
        assert following.result(60) == [2, 6, 10]


def test_steps_of_a_run_that_has_not_begun_are_pending(ada: Client) -> None:
    run_id = ada.create_run([message("a"), message("b")]).run_id
    assert [(step.index, step.tool, step.status) for step in ada.steps(run_id)] == [
        (0, "message", "pending"),
        (1, "message", "pending"),
    ]
