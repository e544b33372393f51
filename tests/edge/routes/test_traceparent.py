"""Header `traceparent`: kept with the run that a request creates, whichever endpoint creates it."""

import httpx
import pytest

from infra.redis_tcp import RedisTcp
from tests.edge.stack import PLAN, SimulatedWorker, create

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS = {"traceparent": TRACEPARENT}


async def kept(redis: RedisTcp, run_id: str) -> object:
    return await redis.command("HGET", f"run:{run_id}", "traceparent")


async def test_every_way_to_create_a_run_keeps_the_trace(
    ada: httpx.AsyncClient, redis: RedisTcp, worker: SimulatedWorker
) -> None:
    source = await create(ada)
    await worker.complete()
    requests = [
        ("/agent/runs", PLAN),
        ("/agent/execute", {"action": "create", **PLAN}),
        (f"/agent/runs/{source}/fork", {"from_step": 0}),
    ]
    runs = [(await ada.post(path, json=body, headers=HEADERS)).json()["run_id"] for path, body in requests]
    batch = (await ada.post("/agent/runs/batch", json={"runs": [PLAN, PLAN]}, headers=HEADERS)).json()
    runs += [result["run"]["run_id"] for result in batch["results"]]
    assert [await kept(redis, run_id) for run_id in runs] == [TRACEPARENT] * 5
    assert await kept(redis, source) is None


async def test_a_repeated_request_keeps_the_trace_of_the_first(ada: httpx.AsyncClient, redis: RedisTcp) -> None:
    other = TRACEPARENT.replace("00f067aa0ba902b7", "1111111111111111")
    answers = [
        await ada.post("/agent/runs", json=PLAN, headers={"traceparent": header, "Idempotency-Key": "k"})
        for header in (TRACEPARENT, other)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert await kept(redis, answers[0].json()["run_id"]) == TRACEPARENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        f"{TRACEPARENT}-00",
        TRACEPARENT.replace("00-", "ff-", 1),
        "0" * 9000,
    ],
)
async def test_a_header_that_cannot_be_read_is_ignored(ada: httpx.AsyncClient, redis: RedisTcp, header: str) -> None:
    answer = await ada.post("/agent/runs", json=PLAN, headers={"traceparent": header})
    assert answer.status_code == 201
    assert await kept(redis, answer.json()["run_id"]) is None
