"""Access: tokens, scopes, and runs of other users, which look like missing runs."""

import httpx
import pytest

from edge_api.http.service_models import VERSION
from tests.edge.stack import PLAN, TOKENS, Edge, Files, SimulatedWorker, client, create

PATHS = ["/agent/runs", "/agent/runs/run_1", "/agent/logs/run_1", "/agent/logs/run_1/stream", "/agent/queue"]
PATHS += ["/agent/whoami", "/events.schema.json", "/agent/runs/run_1/files", "/agent/runs/run_1/files/a"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nobody's"},
        {"Authorization": TOKENS["ada"]},
        {"Authorization": f"Basic {TOKENS['ada']}"},
        {"Authorization": f"Bearer {TOKENS['ada']}x"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_requests_without_a_known_token_get_401(
    edge: Edge, worker: SimulatedWorker, headers: dict[str, str]
) -> None:
    async with client(edge, None) as http:
        for path in PATHS:
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert answer.headers["content-type"] == "application/problem+json"
        for path in ("/agent/runs", "/agent/execute", "/agent/runs/run_1/cancel"):
            assert (await http.post(path, json=PLAN, headers=headers)).status_code == 401
        assert (await http.get("/health", headers=headers)).json() == {"status": "ok", "version": VERSION}
        assert (await http.get("/ready", headers=headers)).json() == {"status": "ready", "version": VERSION}
        assert (await http.get("/openapi.json", headers=headers)).status_code == 200
    assert await worker.size() == 0


async def test_a_token_is_shown_its_user_and_scopes(edge: Edge) -> None:
    async with client(edge, "ada") as http:
        shown = (await http.get("/agent/whoami")).json()
    assert shown == {"user": "ada", "scopes": sorted(shown["scopes"])}
    assert "runs:write" in shown["scopes"]


async def test_the_authorization_scheme_ignores_case(edge: Edge) -> None:
    async with client(edge, None) as http:
        answer = await http.get("/agent/runs", headers={"Authorization": f"bearer  {TOKENS['ada']}"})
        assert answer.status_code == 200


async def test_a_reader_may_only_read(edge: Edge, worker: SimulatedWorker) -> None:
    async with client(edge, "reader") as http:
        assert (await http.get("/agent/runs")).status_code == 200
        requests = [("POST", path) for path in ("/agent/runs", "/agent/execute", "/agent/runs/run_1/start")]
        for method, path in [*requests, ("DELETE", "/agent/runs/run_1")]:
            answer = await http.request(method, path)
            assert answer.status_code == 403
            assert 'scope="runs:write"' in answer.headers["www-authenticate"]
            assert "runs:write" in answer.json()["detail"]
    assert await worker.size() == 0


async def test_a_writer_learns_no_content_from_the_answers_to_writes(edge: Edge, worker: SimulatedWorker) -> None:
    key = {"Idempotency-Key": "k"}
    async with client(edge, "writer") as http:
        for path in ("", "/run_1", "/run_1/attempts", "/run_1/files", "/run_1/files/a"):
            assert (await http.get(f"/agent/runs{path}")).status_code == 403
        created = await http.post("/agent/runs", json=PLAN, headers=key)
        assert (created.status_code, created.json()["plan"]) == (201, [{**PLAN["plan"][0]}])
        run_id = created.json()["run_id"]
        lease = await worker.claim()
        await worker.finish(lease)
        again = await http.post("/agent/runs", json=PLAN, headers=key)
        assert (again.status_code, again.json()["run_id"], again.json()["status"]) == (200, run_id, "succeeded")
        assert (again.json()["result"], again.json()["error"]) == (None, None)
        fork_of = {"fork_of": {"run_id": run_id, "from_step": 0}}
        for path, body in (
            (f"/agent/runs/{run_id}/fork", {"from_step": 0}),
            ("/agent/runs", {**PLAN, **fork_of}),
            ("/agent/execute", {"action": "create", **PLAN, **fork_of}),
        ):
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["detail"]) == (403, "this needs the scope 'runs:read'")


async def test_a_run_of_another_user_looks_like_a_missing_run(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker, files: Files
) -> None:
    theirs = await create(ada)
    await worker.complete()
    before = await worker.redis.command("HGETALL", f"run:{theirs}")
    requests = [("GET", f"/agent/runs/{theirs}{tail}") for tail in ("", "/files", "/files/a.txt")]
    requests += [("GET", f"/agent/logs/{theirs}{tail}") for tail in ("", "/stream")]
    requests += [("POST", f"/agent/runs/{theirs}/{action}") for action in ("start", "cancel", "retry")]
    requests += [("DELETE", f"/agent/runs/{theirs}")]
    for method, path in requests:
        foreign = await bob.request(method, path)
        missing = await bob.request(method, path.replace(theirs, "run_none"))
        assert foreign.status_code == missing.status_code == 404
        assert foreign.text.replace(theirs, "run_none") == missing.text
        assert {*foreign.headers} == {*missing.headers}
    for path in (f"/agent/runs/{theirs}/stream-token", "/agent/runs/run_none/stream-token"):
        assert (await bob.post(path)).status_code == 404
    resume = await bob.post(f"/agent/runs/{theirs}/resume", json={"user_input": "x"})
    assert resume.status_code == 404
    for action in ("start", "stop", "retry"):
        answer = await bob.post("/agent/execute", json={"action": action, "run_id": theirs})
        assert answer.status_code == 404
    assert (await bob.get("/agent/runs")).json() == {"runs": [], "next_cursor": None, "complete": True}
    assert await worker.redis.command("HGETALL", f"run:{theirs}") == before
    assert files.deleted == []


async def test_tokens_are_not_logged(edge: Edge, capfd: pytest.CaptureFixture[str]) -> None:
    async with client(edge, "ada") as http:
        await create(http)
        await http.get("/agent/runs?cursor=bad")
        await http.get("/nothing", headers={"Authorization": "Bearer secret-of-somebody"})
    printed = "".join(capfd.readouterr())
    assert "token-of-ada" not in printed
    assert "secret-of-somebody" not in printed
