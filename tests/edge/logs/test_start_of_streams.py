"""Start of a stream: the header, the parameter of a polyfill, the parameter of the page."""

import httpx
from httpx_sse import aconnect_sse

from tests.edge.stack import SimulatedWorker, create, numbers


async def test_the_header_takes_precedence_over_the_parameter(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete()
    url = f"/agent/logs/{run_id}/stream?after=1"
    async with aconnect_sse(ada, "GET", url, headers={"Last-Event-ID": "3"}) as source:
        assert numbers([event async for event in source.aiter_sse()]) == [4, 5]
    async with aconnect_sse(ada, "GET", url, headers={"Last-Event-ID": ""}) as source:
        assert numbers([event async for event in source.aiter_sse()]) == [2, 3, 4, 5]


async def test_a_polyfill_continues_after_the_event_in_its_parameter(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete()
    url = f"/agent/logs/{run_id}/stream"
    for query, header, expected in (
        ("?lastEventId=2", "", [3, 4, 5]),
        ("?lastEventId=0", "", [1, 2, 3, 4, 5]),
        ("?after=1&lastEventId=3", "", [4, 5]),
        ("?lastEventId=3&after=4", "", [4, 5]),
        ("?lastEventId=2", "3", [4, 5]),
        ("?after=3&lastEventId=", "", [4, 5]),
    ):
        async with aconnect_sse(ada, "GET", url + query, headers={"Last-Event-ID": header}) as source:
            assert numbers([event async for event in source.aiter_sse()]) == expected, query
    assert (await ada.get(f"{url}?lastEventId=5")).status_code == 204
    for junk in ("x", "-1", "1.5", "9" * 17, "1&lastEventId=1"):
        answer = await ada.get(f"{url}?lastEventId={junk}")
        assert (answer.status_code, answer.json()["field"]) == (422, "lastEventId"), junk
