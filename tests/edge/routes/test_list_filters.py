"""Lists of the runs that failed with one error code."""

from collections.abc import Iterable

import httpx
import pytest

from infra.contract.queue import Writes
from infra.contract.redis_store import run_index
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from tests.edge.routes.test_lists import pages
from tests.edge.stack import SimulatedWorker, create, finished


async def fail(http: httpx.AsyncClient, worker: SimulatedWorker, code: str) -> str:
    """Create a run that has failed with this code, and return its id."""
    run_id = await create(http)
    lease = await worker.claim()
    assert lease.run_id == run_id
    error = RunError(code=code, message=f"of the kind {code}", step=0)
    writes = Writes(events=[finished(Status.FAILED)])
    assert await worker.store.finish(lease, Status.FAILED, writes, error=error) is Outcome.OK
    return run_id


async def newest_first(http: httpx.AsyncClient, ids: Iterable[str]) -> list[str]:
    """Return the runs in the order of a list. Two may be of the same millisecond."""
    made = {run_id: (await http.get(f"/agent/runs/{run_id}")).json()["created_ms"] for run_id in ids}
    return sorted(made, key=lambda run_id: (made[run_id], run_id), reverse=True)


def flat(found: list[list[str]]) -> list[str]:
    return [run_id for page in found for run_id in page]


async def test_only_runs_that_failed_with_the_code_are_listed_newest_first_each_once(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    codes = ["timeout", "exit_code", "timeout", "timeouts", "Timeout", "timeout", "exit_code", "time", "timeout"]
    ids = [(code, await fail(ada, worker, code)) for code in codes]
    await fail(bob, worker, "timeout")
    await create(ada)
    await worker.complete()
    await create(ada, start=False)
    for code in {*codes, "no_such_code"}:
        wanted = await newest_first(ada, [run_id for known, run_id in ids if known == code])
        for query in ({"error": code}, {"error": code, "status": "failed"}):
            for limit in (1, 2, 3, 100):
                assert flat(await pages(ada, limit=limit, **query)) == wanted
    assert flat(await pages(ada, status="failed", limit=4)) == await newest_first(ada, [run_id for _, run_id in ids])


async def test_runs_that_failed_in_the_same_millisecond_are_paged_without_loss(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    ids = [(number % 2, await fail(ada, worker, ["exit_code", "timeout"][number % 2])) for number in range(10)]
    for _, run_id in ids:
        await worker.redis.command("ZADD", "user:ada:runs", 1_700_000_000_000, run_id)
    wanted = sorted((run_id for odd, run_id in ids if odd), reverse=True)
    for limit in (1, 2, 5, 6):
        found = await pages(ada, status="failed", error="timeout", limit=limit)
        assert flat(found) == wanted
        assert all(len(page) == limit for page in found[:-1])


async def test_a_listed_run_has_its_error(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await fail(ada, worker, "exit_code")
    (run,) = (await ada.get("/agent/runs", params={"error": "exit_code"})).json()["runs"]
    assert (run["run_id"], run["status"]) == (run_id, "failed")
    assert run["error"] == {"code": "exit_code", "message": "of the kind exit_code", "step": 0}


async def test_a_retried_run_is_no_longer_listed_as_failed(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await fail(ada, worker, "exit_code")
    assert await pages(ada, error="exit_code", status="queued") == [[]]
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).status_code == 200
    assert await pages(ada, error="exit_code") == [[]]
    await worker.complete()
    assert await pages(ada, error="exit_code") == [[]]


async def test_a_rare_failure_is_found_behind_short_pages(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_index, "MAX_SCAN", 4)
    rare = await fail(ada, worker, "timeout")
    for _ in range(9):
        await fail(ada, worker, "exit_code")
    newest = await fail(ada, worker, "timeout")
    assert await pages(ada, status="failed", error="timeout", limit=2) == [[newest], [], [rare]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=failed&error=", "error"),
        (f"status=failed&error={'x' * 65}", "error"),
        ("status=failed&error=timeout&error=exit_code", "error"),
        ("status=broken&error=timeout", "status"),
        ("status=failed&status=failed&error=timeout", "status"),
        ("status=failed&errors=timeout", "errors"),
    ],
)
async def test_an_invalid_filter_is_rejected_by_name(ada: httpx.AsyncClient, query: str, field: str) -> None:
    answer = await ada.get(f"/agent/runs?{query}")
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:swissbrain:problem:invalid-input"


async def test_the_longest_possible_code_can_be_a_filter(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await fail(ada, worker, "x" * 64)
    assert await pages(ada, error="x" * 64) == [[run_id]]


async def test_a_cursor_of_a_filtered_list_is_only_valid_for_its_user(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    for _ in range(2):
        await fail(ada, worker, "timeout")
    url = "/agent/runs?error=timeout&limit=1"
    cursor = (await ada.get(url)).json()["next_cursor"]
    assert (await ada.get(f"{url}&cursor={cursor}")).status_code == 200
    answer = await bob.get(f"{url}&cursor={cursor}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:swissbrain:problem:bad-cursor")


async def test_several_statuses_are_listed_together(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    failed = await fail(ada, worker, "timeout")
    cancelled, created = await create(ada), await create(ada, start=False)
    await ada.post(f"/agent/runs/{cancelled}/cancel")
    queued = await create(ada)
    for query, ids in (
        ("failed,cancelled", [failed, cancelled]),
        ("queued,created", [queued, created]),
        ("succeeded,waiting", []),
        (",".join(Status), [failed, cancelled, created, queued]),
    ):
        for limit in (1, 3, 100):
            assert flat(await pages(ada, status=query, limit=limit)) == await newest_first(ada, ids)
    assert flat(await pages(ada, status="failed,cancelled", error="timeout")) == [failed]


async def test_runs_are_listed_by_the_time_of_their_creation(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    ids = [await create(ada, start=False) for _ in range(6)]
    for number, run_id in enumerate(ids):
        # Two runs in each millisecond, so that pages and bounds cut through one.
        await worker.redis.command("ZADD", "user:ada:runs", 1_700_000_000_000 + number // 2, run_id)
    by_ms = [sorted(ids[first : first + 2], reverse=True) for first in (0, 2, 4)]
    start = 1_700_000_000_000
    for query, wanted in (
        ({"created_after": start}, by_ms[2] + by_ms[1]),
        ({"created_before": start + 2}, by_ms[1] + by_ms[0]),
        ({"created_after": start, "created_before": start + 2}, by_ms[1]),
        ({"created_after": start + 1, "created_before": start + 2}, []),
        ({"created_after": start + 5, "created_before": start}, []),
        ({"created_before": 0}, []),
        ({"created_after": start, "status": "created"}, by_ms[2] + by_ms[1]),
    ):
        for limit in (1, 2, 3, 100):
            assert flat(await pages(ada, limit=limit, **query)) == wanted, query
    # A cursor is a position, so it can be used with other bounds.
    cursor = (await ada.get("/agent/runs?limit=3")).json()["next_cursor"]
    for query, wanted in (
        ({"created_after": start + 1}, []),
        ({"created_after": start}, by_ms[1][1:]),
        ({"created_before": start + 1}, by_ms[0]),
    ):
        found = (await ada.get("/agent/runs", params={**query, "cursor": cursor})).json()["runs"]
        assert [run["run_id"] for run in found] == wanted


async def test_runs_are_listed_by_their_metadata(ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    both = await create(ada, metadata={"team": "data", "a.b": "1"})
    team = await create(ada, metadata={"team": "data"})
    empty = await create(ada, metadata={"team": ""})
    await create(ada)
    await create(bob, metadata={"team": "data"})
    for query, ids in (
        ({"metadata.team": "data"}, [both, team]),
        ({"metadata.team": "data", "metadata.a.b": "1"}, [both]),
        ({"metadata.a.b": "1"}, [both]),
        ({"metadata.team": ""}, [empty]),
        ({"metadata.team": "Data"}, []),
        ({"metadata.a": "1"}, []),
    ):
        for limit in (1, 100):
            assert flat(await pages(ada, limit=limit, **query)) == await newest_first(ada, ids), query


async def test_a_page_says_whether_its_search_was_complete(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_index, "MAX_SCAN", 4)
    old = await create(ada, metadata={"k": "v"})
    for _ in range(5):
        await create(ada)
    damaged = await create(ada)
    await worker.redis.command("HSET", f"run:{damaged}", "status", "of a newer release")
    query: dict[str, str] = {"metadata.k": "v"}
    first = (await ada.get("/agent/runs", params=query)).json()
    assert (first["runs"], first["complete"], first["unreadable"]) == ([], False, [damaged])
    second = (await ada.get("/agent/runs", params={**query, "cursor": first["next_cursor"]})).json()
    assert [run["run_id"] for run in second["runs"]] == [old]
    assert (second["complete"], second["next_cursor"]) == (True, None)
    # A page that is full is complete, although more runs follow.
    full = (await ada.get("/agent/runs?limit=2")).json()
    assert (full["complete"], full["next_cursor"] is None) == (True, False)


async def test_three_of_four_thousand_runs_are_found_while_runs_change_state(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    ids = [await create(ada, start=False, metadata={"n": str(number)}) for number in range(3)]
    copied = """
        local fields = redis.call('HGETALL', KEYS[1])
        for n = 1, 3997 do
          local id = 'run_' .. n
          redis.call('HSET', 'run:' .. id, unpack(fields))
          redis.call('HSET', 'run:' .. id, 'id', id, 'brief', '{"title":"x"}')
          redis.call('ZADD', 'user:ada:runs', 1700000000000 + math.floor(n / 4), id)
        end"""
    await worker.redis.command("EVAL", copied, 1, f"run:{ids[0]}")
    await worker.redis.command("ZADD", "user:ada:runs", 1, ids[0], 1_700_000_000_900, ids[1], 1_900_000_000_000, ids[2])
    every, answers = list[str](), 0
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        page = (await ada.get("/agent/runs", params=params)).json()
        every += [run["run_id"] for run in page["runs"]]
        cursor = page["next_cursor"]
        # Between two pages, listed runs are started, cancelled and deleted.
        if (answers := answers + 1) % 10 == 0:
            near = [run_id for run_id in every[-5:] if run_id not in ids]
            await ada.post(f"/agent/runs/{near[0]}/start")
            await ada.post(f"/agent/runs/{near[1]}/cancel")
            assert (await ada.delete(f"/agent/runs/{near[2]}")).status_code == 204
    assert len(every) == len(set(every)) == 4_000
    found = await pages(ada, **{"status": "created", "metadata.n": "1"})
    assert flat(found) == [ids[1]]
    assert len(found) <= 5
    rare = flat([page for number in "012" for page in await pages(ada, limit=3, **{"metadata.n": number})])
    assert rare == ids


async def test_no_run_is_skipped_if_one_of_its_millisecond_is_deleted_between_two_reads(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    ids = sorted([await create(ada, start=False) for _ in range(9)], reverse=True)
    for run_id in ids:
        await worker.redis.command("ZADD", "user:ada:runs", 1_700_000_000_000, run_id)
    first = (await ada.get("/agent/runs?limit=3")).json()
    assert (await ada.delete(f"/agent/runs/{ids[0]}")).status_code == 204
    rest = (await ada.get("/agent/runs", params={"cursor": first["next_cursor"]})).json()["runs"]
    assert [run["run_id"] for run in [*first["runs"], *rest]] == ids


@pytest.mark.parametrize(
    ("query", "field", "named"),
    [
        ("status=failed,broken", "status", "allowed are created, queued, running, waiting"),
        ("status=", "status", "allowed are created"),
        ("status=failed,", "status", "allowed are created"),
        (f"status={','.join(['failed'] * 8)}", "status", "length <= 7"),
        ("created_after=yesterday", "created_after", "int"),
        ("created_before=-1", "created_before", ">= 0"),
        (f"created_after={2**53}", "created_after", "<= 9007199254740991"),
        ("metadata=x", "metadata", "metadata.KEY=VALUE"),
        ("metadata.=x", "metadata", "length >= 1"),
        (f"metadata.k={'x' * 513}", "metadata", "length <= 512"),
        (f"metadata.{'k' * 65}=x", "metadata", "length <= 64"),
        ("metadata.k=1&metadata.k=2", "metadata.k", "given twice"),
        ("&".join(f"metadata.{number}=x" for number in range(51)), "metadata", "length <= 50"),
        ("metadatas.k=1", "metadatas.k", "allowed are status, error, created_after"),
    ],
)
async def test_an_invalid_selection_is_rejected_with_what_is_allowed(
    ada: httpx.AsyncClient, query: str, field: str, named: str
) -> None:
    answer = await ada.get(f"/agent/runs?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert named in answer.json()["detail"]
