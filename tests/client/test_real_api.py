"""The client against the real API, over a real Valkey and the real gateway."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest

from infra.contract.files import FileEntry
from infra.contract.states import Status
from swissbrain import ApiError, Client, log_position
from swissbrain.models import Event, Gap
from tests.client.both_clients import Connect
from tests.client.real_api import PLAN, Real
from tests.client.scripted_server import ScriptedServer, reply
from tests.edge.stack import TOKENS, SimulatedWorker, note
from tests.support.waiting import wait_until


def test_a_run_is_created_once_for_a_key(ada: Client) -> None:
    run = ada.create_run(prompt="do it", plan=PLAN, metadata={"a": "b"}, priority=7, idempotency_key="k")
    assert (run.status, run.prompt, run.plan, run.metadata) == ("queued", "do it", PLAN, {"a": "b"})
    assert (
        ada.create_run(prompt="do it", plan=run.plan, metadata={"a": "b"}, priority=7, idempotency_key="k").run_id
        == run.run_id
    )
    assert ada.create_run(prompt="do it").run_id != ada.create_run(prompt="do it").run_id
    with pytest.raises(ApiError) as caught:
        ada.create_run(prompt="something else", idempotency_key="k")
    assert (caught.value.status, caught.value.kind) == (409, "urn:swissbrain:problem:idempotency-key-reused")
    got = ada.get_run(run.run_id)
    assert got.queue
    assert msgspec.structs.replace(got, queue=None) == run
    assert ada.queue().ready == 3


def test_runs_are_listed_over_several_pages(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swissbrain.endpoints.RUNS_PER_PAGE", 3)
    made = [ada.create_run(plan=PLAN, start=number > 2) for number in range(7)]
    listed = [*ada.runs()]
    assert {run.run_id for run in listed} == {run.run_id for run in made}
    assert len(listed) == 7
    assert [run.created_ms for run in listed] == sorted((run.created_ms for run in made), reverse=True)
    assert {run.run_id for run in ada.runs(status="created")} == {run.run_id for run in made[:3]}
    with pytest.raises(ApiError) as caught:
        next(ada.runs(status="nonsense"))
    assert (caught.value.status, caught.value.field) == (422, "status")


def test_a_log_is_read_over_several_pages(
    real: Real, worker: SimulatedWorker, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swissbrain.endpoints.EVENTS_PER_PAGE", 2)
    run_id = ada.create_run(plan=PLAN).run_id
    assert [*ada.logged(run_id)] == []
    lease = real.do(worker.claim())
    for number in range(4):
        real.do(worker.emit(lease, note(number)))
    assert [item.seq for item in ada.logged(run_id) if isinstance(item, Event)] == [1, 2, 3, 4, 5]
    real.do(worker.finish(lease))
    assert [item.seq for item in ada.logged(run_id, after=3) if isinstance(item, Event)] == [4, 5, 6]
    assert ada.get_run(run_id).result == {"answer": 42}
    real.do(worker.redis.command("XTRIM", worker.store.keys.log(run_id), "MAXLEN", 2))
    first, *rest = ada.logged(run_id)
    assert first == Gap(first=1, last=4)
    assert [*ada.events(run_id)] == [first, *rest]
    assert len(rest) == 2


def test_a_log_is_followed_to_its_end_over_streams_that_end_early(
    real: Real, worker: SimulatedWorker, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_position, "MAX_PAUSE_S", 0.02)
    run_id = ada.create_run(plan=PLAN).run_id
    seen: list[Event | Gap] = []

    def follow() -> str:
        seen.extend(ada.events(run_id))
        return ada.get_run(run_id).status

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        lease = real.do(worker.claim())
        for number in range(10):
            real.do(worker.emit(lease, note(number), note(number, text="\u2028é\r\n")))
            threading.Event().wait(0.1)
        real.do(worker.finish(lease, Status.FAILED))
        assert following.result(60) == "failed"
    assert [item.seq for item in seen if isinstance(item, Event)] == [*range(1, 23)]
    assert [*ada.events(run_id, after=20)] == seen[20:]
    assert [*ada.events(run_id, after=22)] == []
    assert [*ada.logged(run_id)] == seen


def test_a_run_passes_through_its_transitions(real: Real, worker: SimulatedWorker, ada: Client) -> None:
    run_id = ada.create_run(plan=PLAN, start=False).run_id
    assert ada.start(run_id).status == "queued"
    assert ada.start(run_id).status == "queued"
    lease = real.do(worker.claim())
    real.do(worker.wait(lease))
    assert ada.resume(run_id, "yes").status == "queued"
    real.do(worker.complete(status=Status.FAILED))
    with pytest.raises(ApiError) as caught:
        ada.cancel(run_id)
    assert (caught.value.status, caught.value.run_status) == (409, "failed")
    assert ada.retry(run_id).status == "queued"
    real.do(worker.claim())
    state = ada.cancel(run_id)
    assert (state.status, state.cancel_requested) == ("running", True)
    assert ada.cancel(run_id) == state
    with pytest.raises(ApiError):
        ada.delete(run_id)


def test_a_deleted_run_is_not_found(real: Real, ada: Client) -> None:
    run_id = ada.create_run(plan=PLAN).run_id
    assert ada.cancel(run_id).status == "cancelled"
    ada.delete(run_id)
    assert ("ada", run_id) in real.files.deleted
    for ask in (
        lambda: ada.get_run(run_id),
        lambda: ada.delete(run_id),
        lambda: ada.cancel(run_id),
        lambda: [*ada.events(run_id)],
        lambda: [*ada.logged(run_id)],
        lambda: ada.files(run_id),
    ):
        with pytest.raises(ApiError) as caught:
            ask()
        assert (caught.value.status, caught.value.kind) == (404, "urn:swissbrain:problem:run-not-found")


def test_files_are_fetched_and_invalid_paths_rejected(
    real: Real, worker: SimulatedWorker, ada: Client, api: ScriptedServer, tmp_path: Path
) -> None:
    real.files.url, api.always = api.url, reply(200, b"content")
    path = "é #?%2e%2e.txt"
    run_id = ada.create_run(plan=PLAN).run_id
    entry = FileEntry(key="key", size_bytes=7, modified_ms=1)
    real.do(worker.emit(real.do(worker.claim()), note(), files={path: entry}))
    assert [(file.path, file.size_bytes) for file in ada.files(run_id)] == [(path, 7)]
    ada.save(run_id, path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"content"
    for strange, status in [
        ("..", 422),
        ("../../x", 422),
        ("a/../b", 422),
        ("/etc/passwd", 422),
        ("a//b", 422),
        ("no", 404),
    ]:
        with pytest.raises(ApiError) as caught:
            ada.save(run_id, strange, tmp_path / "b")
        assert caught.value.status == status, strange
    assert len(api.requests) == 1


@pytest.mark.parametrize("run_id", ["..", ".", "../queue", "run_x/files", "x?y#z", "é\0", "\udcff", "a" * 10_000])
def test_malformed_run_ids_are_not_found(ada: Client, run_id: str) -> None:
    for ask in (ada.cancel, ada.start, ada.delete, lambda run_id: [*ada.logged(run_id)]):
        with pytest.raises(ApiError) as caught:
            ask(run_id)
        assert caught.value.status in {404, 405}


def test_wrong_tokens_and_missing_scopes_are_rejected(real: Real, worker: SimulatedWorker, connect: Connect) -> None:
    for token, status in [("unknown", 401), (TOKENS["reader"], 403)]:
        with connect(real.url, token) as client, pytest.raises(ApiError) as caught:
            client.create_run(prompt="x")
        assert caught.value.status == status


def test_a_follower_that_stops_leaves_no_subscription(real: Real, ada: Client, worker: SimulatedWorker) -> None:
    run_id = ada.create_run(plan=PLAN).run_id
    lease = real.do(worker.claim())
    items = ada.events(run_id)
    assert next(items)
    del items
    real.do(worker.finish(lease))
    channels = worker.redis.command
    wait_until(lambda: not real.do(channels("PUBSUB", "CHANNELS")), "nobody is subscribed")


def test_a_stream_token_reads_the_log_of_its_run(real: Real, worker: SimulatedWorker, ada: Client) -> None:
    run_id = ada.create_run(plan=PLAN).run_id
    real.do(worker.complete(events=1))
    for made in (ada.stream_token(run_id), ada.stream_token(run_id, 10)):
        answer = httpx.get(f"{real.url}/agent/logs/{run_id}", params={"token": made.token}, timeout=20)
        assert [event["seq"] for event in answer.json()["events"]] == [1, 2, 3]
        assert httpx.get(real.url + made.href, timeout=20).text.count("data: ") == 4
        assert made.token not in repr(made)
    lifetimes_ms = [ada.stream_token(run_id, expires_s).expires_ms - time.time() * 1000 for expires_s in (None, 3600)]
    assert lifetimes_ms[0] <= 301_000 < 3_000_000 < lifetimes_ms[1]
    for asked, status in [(("none", None), 404), ((run_id, 0), 422)]:
        with pytest.raises(ApiError) as caught:
            ada.stream_token(*asked)
        assert caught.value.status == status
