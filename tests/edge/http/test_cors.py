"""CORS: which pages may call, what they may send, and that they can read every response, also errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from edge_api.settings import ApiSettings
from infra.contract.files import FileEntry
from infra.settings import RedisRestSettings
from tests.edge.stack import PLAN, STREAM_KEY, TOKENS, Edge, Files, SimulatedWorker, client, create, serve
from tests.support.redis import TOKEN, free_port

PAGE = "https://app.example.ch"
OTHER = "https://evil.example"
ALLOW = "access-control-allow-origin"


class OneFile(Files):
    """Workspaces with one file, and with an unexpected failure."""

    def link_type(self, path: str, *, inline: bool) -> str:
        return "application/octet-stream"

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        return "https://store.example/file"

    async def delete_run(self, user_id: str, run_id: str) -> int:
        raise KeyError("unexpected")


@asynccontextmanager
async def browser(rest: RedisRestSettings, *origins: str, origin: str = PAGE) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the client of a page of `origin`, in front of an API that allows `origins`."""
    settings = ApiSettings(cors_origins=origins, stream_token_keys=(STREAM_KEY,))
    async with serve(rest, OneFile(), settings) as edge, client(edge, "ada") as http:
        http.headers["Origin"] = origin
        yield http


def preflight(method: str, *headers: str) -> dict[str, str]:
    requested = {"Access-Control-Request-Method": method}
    return requested | ({"Access-Control-Request-Headers": ",".join(headers)} if headers else {})


async def answers(http: httpx.AsyncClient, worker: SimulatedWorker) -> AsyncIterator[tuple[int, httpx.Response]]:
    """Yield one response of each kind, with the status that it should have."""
    run_id, unstarted = await create(http), await create(http, start=False)
    lease = await worker.claim()
    await worker.emit(lease, files={"a.txt": FileEntry(key="k", size_bytes=1, modified_ms=1)})
    await worker.finish(lease)
    log = f"/agent/logs/{run_id}"
    yield 201, await http.post("/agent/runs", json=PLAN)
    yield 201, await http.post(f"/agent/runs/{run_id}/stream-token")
    yield 200, await http.get(log)
    yield 200, await http.get(f"{log}/stream")
    yield 204, await http.get(f"{log}/stream?after=2")
    yield 307, await http.get(f"/agent/runs/{run_id}/files/a.txt")
    yield 400, await http.post("/agent/runs", content=b"{")
    yield 401, await http.get(log, headers={"Authorization": ""})
    yield 401, await http.get(f"{log}/stream?token=bad", headers={"Authorization": ""})
    yield 403, await http.post("/agent/runs", headers={"Authorization": f"Bearer {TOKENS['reader']}"})
    yield 404, await http.get("/agent/runs/none")
    yield 404, await http.get("/nothing")
    yield 405, await http.put("/agent/runs")
    yield 409, await http.post(f"/agent/runs/{run_id}/cancel")
    yield 413, await http.post("/agent/runs", content=b"x" * 1024 * 1024 + b"x")
    yield 422, await http.post("/agent/runs", json={})
    yield 500, await http.delete(f"/agent/runs/{unstarted}")


async def test_a_page_of_an_allowed_origin_can_read_every_response(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with browser(rest_settings, "https://first.example", PAGE) as http:
        async for status, answer in answers(http, worker):
            assert answer.status_code == status, answer.text
            assert answer.headers[ALLOW] == PAGE, answer.url
            assert "Origin" in answer.headers["vary"]
            assert answer.headers["access-control-expose-headers"] == "Location, Retry-After"
            assert "access-control-allow-credentials" not in answer.headers


async def test_a_page_can_read_the_error_of_an_outage() -> None:
    unreachable = RedisRestSettings(f"http://127.0.0.1:{free_port()}", TOKEN)
    async with browser(unreachable, PAGE) as http:
        answer = await http.get("/agent/runs")
        assert (answer.status_code, answer.headers[ALLOW]) == (503, PAGE)
        assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    "origin", [OTHER, "null", f"{PAGE}:8443", f"{PAGE}.evil.example", PAGE.replace("https", "http")]
)
async def test_a_page_of_another_origin_reads_nothing(
    worker: SimulatedWorker, rest_settings: RedisRestSettings, origin: str
) -> None:
    async with browser(rest_settings, PAGE, origin=origin) as http:
        refused = await http.options("/agent/runs", headers=preflight("POST", "authorization"))
        assert refused.status_code == 400
        assert ALLOW not in refused.headers
        async for _, answer in answers(http, worker):
            assert ALLOW not in answer.headers


async def test_every_page_may_call_with_a_wildcard_origin(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with browser(rest_settings, "*", origin=OTHER) as http:
        allowed = await http.options("/agent/runs", headers=preflight("POST", "authorization"))
        assert (allowed.status_code, allowed.headers[ALLOW]) == (200, "*")
        async for _, answer in answers(http, worker):
            assert answer.headers[ALLOW] == "*"
            assert "access-control-allow-credentials" not in answer.headers


async def test_a_preflight_allows_the_methods_and_headers_of_the_api(rest_settings: RedisRestSettings) -> None:
    sent = ("authorization", "cache-control", "content-type", "idempotency-key", "last-event-id", "x-requested-with")
    async with browser(rest_settings, PAGE) as http:
        del http.headers["Authorization"]
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            allowed = await http.options("/agent/runs", headers=preflight(method, *sent))
            assert (allowed.status_code, allowed.headers[ALLOW]) == (200, PAGE)
            assert method in allowed.headers["access-control-allow-methods"]
            assert {*sent} <= {*allowed.headers["access-control-allow-headers"].lower().split(", ")}
            assert allowed.headers["access-control-max-age"] == "3600"
        for headers in (preflight("TRACE"), preflight("POST", "x-other")):
            assert (await http.options("/agent/runs", headers=headers)).status_code == 400


async def test_no_page_gets_cors_headers_by_default(edge: Edge, ada: httpx.AsyncClient) -> None:
    ada.headers["Origin"] = PAGE
    for answer in (await ada.get("/agent/runs"), await ada.get("/nothing"), await ada.get("/health")):
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]
    refused = await ada.options("/agent/runs", headers=preflight("GET", "authorization"))
    assert refused.status_code == 405
