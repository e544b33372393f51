"""Stream tokens: valid for reading the log of one run for some minutes, and for nothing else."""

import logging
import signal
import string
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import jwt
import pytest
from httpx_sse import aconnect_sse
from starlette.requests import Request

from edge_api.auth.stream_tokens import StreamTokens
from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.errors import EdgeError, StreamTokenInvalid
from edge_api.http.principal import Principal
from edge_api.settings import ApiSettings
from infra.contract.runs import PlanStep, RunSpec
from infra.settings import RedisRestSettings
from tests.edge.api_process import TOKEN as TOKEN_OF_PROCESS
from tests.edge.api_process import running
from tests.edge.stack import STREAM_KEY, Edge, Files, SimulatedWorker, client, create, note, numbers, serve

PROBLEM = "urn:swissbrain:problem:"
OTHER_KEY = "another-key-of-the-tests-" + "x" * 16
BASE64 = string.ascii_letters + string.digits + "-_"


def claims(run_id: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token of ada. A change to None removes a claim."""
    now = int(time.time())
    good = {
        "sub": "ada",
        "run": run_id,
        "aud": "swissbrain:stream",
        "iss": "swissbrain",
        "iat": now,
        "exp": now + 60,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(run_id: str, key: str = STREAM_KEY, **changes: Any) -> str:
    return jwt.encode(claims(run_id, **changes), key, "HS256")


async def minted(http: httpx.AsyncClient, run_id: str, **body: Any) -> dict[str, Any]:
    answer = await http.post(f"/agent/runs/{run_id}/stream-token", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_minted_token_has_its_claims_and_a_link(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id = await create(ada)
    before = time.time()
    for body, expires_s in [(None, 300), ({}, 300), ({"expires_s": 1}, 1), ({"expires_s": 3600}, 3600)]:
        answer = await ada.post(f"/agent/runs/{run_id}/stream-token", json=body)
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        made = answer.json()
        assert made.keys() == {"token", "expires_ms", "href"}
        assert made["href"] == f"/agent/logs/{run_id}/stream?token={made['token']}"
        assert (before + expires_s) * 1000 <= made["expires_ms"] <= (time.time() + expires_s + 1) * 1000
        decoded = jwt.decode(
            made["token"],
            STREAM_KEY,
            ["HS256"],
            audience="swissbrain:stream",
            issuer="swissbrain",
            options={"verify_exp": False},  # one second may have passed since
        )
        assert decoded.keys() == {"sub", "run", "aud", "iss", "iat", "exp"}
        assert (decoded["sub"], decoded["run"], decoded["exp"] * 1000) == ("ada", run_id, made["expires_ms"])


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"expires_s": 0}', 422, "$.expires_s"),
        (b'{"expires_s": 3601}', 422, "$.expires_s"),
        (b'{"expires_s": 1.5}', 422, "$.expires_s"),
        (b'{"expires_s": null}', 422, "$.expires_s"),
        (b'{"run": "run_other"}', 422, "$.run"),
        (b"[]", 422, "$"),
        (b"{", 400, None),
    ],
)
async def test_invalid_mint_requests_are_rejected(
    ada: httpx.AsyncClient, body: bytes, status: int, field: str | None
) -> None:
    run_id = await create(ada)
    answer = await ada.post(f"/agent/runs/{run_id}/stream-token", content=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field)


async def test_a_token_opens_the_stream_and_the_pages_of_its_run(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete(events=2)
    made = await minted(ada, run_id)
    async with client(edge, None) as page:
        for headers, query, seen in [
            ({}, "", [1, 2, 3, 4]),
            ({}, "&after=1", [2, 3, 4]),
            ({"Last-Event-ID": "2"}, "&after=1", [3, 4]),
        ]:
            async with aconnect_sse(page, "GET", made["href"] + query, headers=headers) as source:
                events = [event async for event in source.aiter_sse()]
            assert numbers(events) == seen
            assert events[-1].event == "end"
        assert (await page.get(made["href"] + "&after=4")).status_code == 204
        assert (await page.head(made["href"])).status_code == 200
        log = f"/agent/logs/{run_id}?token={made['token']}"
        assert [event["seq"] for event in (await page.get(f"{log}&after=1&limit=2")).json()["events"]] == [2, 3]
        unknown = await page.get(f"{log}&nonsense=1")
        assert (unknown.status_code, unknown.json()["field"]) == (422, "nonsense")


async def refusal(
    http: httpx.AsyncClient, run_id: str, query: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Return status, kind and detail of the problem. Both routes must reject alike, without repeating the token."""
    log = f"/agent/logs/{run_id}"
    answers = [await http.get(f"{path}?token={query}", headers=headers) for path in (log, f"{log}/stream")]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        for part in str(answer.url.params.get("token", "")).split("."):
            assert not part or part not in answer.text + str(answer.headers)
    (response,) = {(answer.status_code, answer.text) for answer in answers}
    problem = answers[0].json()
    assert problem["field"] == "token"
    assert ('error="invalid_token"' in answers[0].headers.get("www-authenticate", "")) == (response[0] == 401)
    return response[0], problem["type"].removeprefix(PROBLEM), problem["detail"]


async def test_invalid_tokens_are_rejected_with_their_reason(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id, other = await create(ada), await create(ada)
    await worker.complete()
    good, long_ago = token(run_id), int(time.time()) - 1
    damaged = (401, "stream-token-invalid", "the stream token was not made by this API, or is damaged")
    async with client(edge, None) as page:
        assert (await page.get(f"/agent/logs/{run_id}?token={good}")).status_code == 200
        assert (await refusal(page, run_id, token(other)))[:2] == (403, "stream-token-of-another-run")
        assert (await refusal(page, run_id, token("run_none")))[:2] == (403, "stream-token-of-another-run")
        expired = await refusal(page, run_id, token(run_id, exp=long_ago))
        assert expired[:2] == (401, "stream-token-expired")
        assert "?after=" in expired[2]
        bad = [token(run_id, OTHER_KEY), token(run_id, OTHER_KEY, exp=long_ago)]
        bad += [token(run_id, aud="swissbrain"), token(run_id, aud=["swissbrain:stream"]), token(run_id, iss="other")]
        bad += [token(run_id, STREAM_KEY, **{name: None}) for name in claims(run_id)]
        bad += [token(run_id, sub=7), token(run_id, exp="soon"), token(run_id, nbf=int(time.time()) + 60)]
        bad += [jwt.encode(claims(run_id), STREAM_KEY, "HS512"), jwt.encode(claims(run_id), "", "none")]
        bad += [
            "",
            ".",
            "..",
            "nonsense",
            "%FF%FE",
            "%00",
            good[:-1],
            f"{good}A",
            f"{good}%3D",
            f"{good}.",
            f"%20{good}",
        ]
        bad += [good.replace(".", ".."), good.rpartition(".")[0], "A" * 5000, f"{good}{'A' * 5000}"]
        for each in bad:
            assert await refusal(page, run_id, each) == damaged, each
        twice = await refusal(page, run_id, f"{good}&token={good}")
        assert twice == (401, "stream-token-invalid", "the token is given twice")
        for header in (f"Bearer {good}", ada.headers["authorization"], ""):
            both = await refusal(page, run_id, good, {"Authorization": header})
            assert both[:2] == (401, "stream-token-invalid")
            assert both[2].endswith("not both")


async def test_a_token_opens_no_other_endpoint(ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete()
    made = (await minted(ada, run_id))["token"]
    async with client(edge, None) as page:
        endpoints: Sequence[ApiEndpoint] = edge.app.state.endpoints
        for endpoint in endpoints:
            # Calls of QStash prove themselves by a signature.
            if endpoint.path.startswith(("/internal/", "/webhooks/")):
                continue
            method = endpoint.method
            url = endpoint.path.replace("{run_id}", run_id).replace("{path:file}", "a.txt")
            url = url.replace("{index:index}", "0")
            answer = await page.request(method, url, params={"token": made})
            if endpoint.stream_token or endpoint.public:
                assert answer.status_code == 200
            else:
                assert (answer.status_code, answer.json()["type"]) == (401, f"{PROBLEM}unauthenticated"), url
            as_bearer = await page.request(method, url, headers={"Authorization": f"Bearer {made}"})
            assert as_bearer.status_code == (200 if endpoint.public else 401)
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["status"] == "succeeded"


async def test_a_token_reads_only_runs_of_its_user(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    refused = await bob.post(f"/agent/runs/{run_id}/stream-token")
    missing = await bob.post("/agent/runs/run_none/stream-token")
    assert refused.status_code == missing.status_code == 404
    assert refused.text.replace(run_id, "run_none") == missing.text
    spec = RunSpec(plan=[PlanStep(tool="message", args={"text": "hello"})])
    await worker.store.create("run_of_reader", "reader", spec, start=True, digest="")
    async with client(edge, "reader") as reader, client(edge, None) as page:
        made = await minted(reader, "run_of_reader")
        assert (await page.get("/agent/logs/run_of_reader", params={"token": made["token"]})).status_code == 200
        of_bob = f"/agent/logs/{run_id}?token={token(run_id, sub='bob')}"
        assert (await page.get(of_bob)).json()["type"] == f"{PROBLEM}run-not-found"


async def test_a_token_of_a_deleted_run_gets_404(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id = await create(ada, start=False)
    made = await minted(ada, run_id)
    await ada.delete(f"/agent/runs/{run_id}")
    async with client(edge, None) as page:
        for url in (made["href"], made["href"].replace("/stream", "")):
            answer = await page.get(url)
            assert (answer.status_code, answer.json()["type"]) == (404, f"{PROBLEM}run-not-found")


async def test_a_key_rotation_keeps_old_tokens_valid(worker: SimulatedWorker, rest_settings: RedisRestSettings) -> None:
    known = {}
    for keys in [(STREAM_KEY,), (OTHER_KEY, STREAM_KEY), (OTHER_KEY,)]:
        settings = ApiSettings(stream_token_keys=keys)
        async with (
            serve(rest_settings, Files(), settings) as edge,
            client(edge, "ada") as http,
            client(edge, None) as page,
        ):
            run_id = await create(http)
            for key in (STREAM_KEY, OTHER_KEY):
                answer = await page.get(f"/agent/logs/{run_id}", params={"token": token(run_id, key)})
                known[keys, key] = answer.status_code
            made = (await minted(http, run_id))["token"]
            assert jwt.decode(made, keys[0], ["HS256"], audience="swissbrain:stream")["run"] == run_id
    assert known == {
        ((STREAM_KEY,), STREAM_KEY): 200,
        ((STREAM_KEY,), OTHER_KEY): 401,
        ((OTHER_KEY, STREAM_KEY), STREAM_KEY): 200,
        ((OTHER_KEY, STREAM_KEY), OTHER_KEY): 200,
        ((OTHER_KEY,), STREAM_KEY): 401,
        ((OTHER_KEY,), OTHER_KEY): 200,
    }


async def test_an_api_without_a_signing_key_serves_everything_else(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with serve(rest_settings, Files(), ApiSettings()) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        answer = await http.post(f"/agent/runs/{run_id}/stream-token")
        assert (answer.status_code, answer.json()["type"]) == (501, f"{PROBLEM}stream-tokens-off")
        assert "EDGE_STREAM_TOKEN_KEY" in answer.json()["detail"]
        assert (await http.get(f"/agent/logs/{run_id}")).status_code == 200
        async with client(edge, None) as page:
            assert (await refusal(page, run_id, token(run_id)))[0] == 401


def test_a_token_with_a_changed_missing_or_added_character_is_rejected() -> None:
    tokens = StreamTokens([STREAM_KEY])
    request = Request({"type": "http", "headers": [], "path_params": {"run_id": "run_1"}})
    good = tokens.mint("ada", "run_1", 300, time.time()).token
    assert tokens.principal([good], request) == Principal("ada", frozenset({"runs:read"}))
    others = {*BASE64, ".", "=", "+", "/", " ", "é", "\0"}
    bad = {good[:index] + other + good[index + 1 :] for index in range(len(good)) for other in others}
    bad |= {good[:index] + good[index + 1 :] for index in range(len(good))}
    bad |= {good[:index] + other + good[index:] for index in range(len(good) + 1) for other in "A.= \n"}
    for each in bad - {good}:
        with pytest.raises(StreamTokenInvalid):
            tokens.principal([each], request)


def test_a_token_from_a_machine_whose_clock_is_ahead_is_accepted() -> None:
    tokens = StreamTokens([STREAM_KEY])
    request = Request({"type": "http", "headers": [], "path_params": {"run_id": "run_1"}})
    assert tokens.principal([tokens.mint("ada", "run_1", 60, time.time() + 30).token], request).user == "ada"


def test_errors_do_not_show_tokens() -> None:
    request = Request({"type": "http", "headers": [], "path_params": {"run_id": "run_1"}})
    bad = [token("run_2"), token("run_1", exp=1), token("run_1", OTHER_KEY), token("run_1", aud="x")]
    for each in bad:
        with pytest.raises(EdgeError) as caught:
            StreamTokens([STREAM_KEY]).principal([each], request)
        assert each not in repr(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_tokens_are_in_no_log_line_of_the_app(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("swissbrain", "uvicorn.error", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    run_id = await create(ada)
    lease = await worker.claim()
    made = (await minted(ada, run_id))["token"]
    async with client(edge, None) as page:
        async with aconnect_sse(page, "GET", f"/agent/logs/{run_id}/stream?token={made}") as source:
            await worker.emit(lease, note())
            await worker.finish(lease)
            assert numbers([event async for event in source.aiter_sse()]) == [1, 2, 3]
        for path in (f"logs/{run_id}/stream/", f"logs/{run_id}x", f"runs/{run_id}", "nothing"):
            answer = await page.get(f"/agent/{path}?token={made}")
            assert answer.status_code in {401, 403, 404}
            assert made not in answer.text + str(answer.headers)
    records = [record for record in caplog.records if record.name != "httpx"]
    assert any(record.getMessage() == "stream_token.minted" for record in records)
    assert made not in str([vars(record) for record in records])


def test_tokens_are_not_in_the_output_of_the_process(rest_settings: RedisRestSettings) -> None:
    with running(rest_settings, EDGE_STREAM_TOKEN_KEY=STREAM_KEY) as (process, url):
        bearer = {"Authorization": f"Bearer {TOKEN_OF_PROCESS}"}
        with httpx.Client(base_url=url, timeout=20) as http:
            run = http.post("/agent/runs", json={"prompt": "x"}, headers=bearer).json()
            made = http.post(f"/agent/runs/{run['run_id']}/stream-token", headers=bearer).json()
            with http.stream("GET", made["href"]) as answer:
                assert answer.status_code == 200
            assert http.get(f"{made['href']}x").status_code == 401
            assert http.get(f"/agent/logs/run_x?token={made['token']}").status_code == 403
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert "stream_token.minted" in errors
    assert made["token"].rpartition(".")[2] not in errors
    assert STREAM_KEY not in errors
