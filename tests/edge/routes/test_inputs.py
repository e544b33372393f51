"""Input files over HTTP: announced, uploaded to a real object store, checked by the start."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from infra.settings import RedisRestSettings, S3Settings
from infra.workspace import Workspaces
from swissbrain import AsyncClient, message
from tests.edge.stack import TOKENS, Edge, SimulatedWorker, client, create, serve

DATA = b"a,b\n1,2\n"
FILE_BYTES = 256 * 1024 * 1024
TOTAL_BYTES = 1024 * 1024 * 1024
AWKWARD = [
    "a b.csv",
    "ä/日本 😀.csv",
    "100%.csv",
    "a%2Fb",
    "a+b#c?d&e=f.csv",
    ".hidden/.x",
    "quo\"te'.csv",
    "x" * 255,
    "/".join(["y" * 255, "z" * 255]),
]


def described(data: bytes) -> dict[str, Any]:
    return {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest_asyncio.fixture(loop_scope="session")
async def ada(stored_edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client(stored_edge, "ada") as http:
        yield http


def at(run_id: str, path: str) -> str:
    return f"/agent/runs/{run_id}/files/{quote(path)}"


async def announce(ada: httpx.AsyncClient, run_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await ada.put(at(run_id, path), json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    announced: dict[str, Any] = answer.json()
    return announced


async def send(upload: dict[str, Any], data: bytes) -> int:
    async with httpx.AsyncClient() as anyone:
        return (
            await anyone.request(upload["method"], upload["url"], content=data, headers=upload["headers"])
        ).status_code


async def start(ada: httpx.AsyncClient, run_id: str) -> httpx.Response:
    return await ada.post(f"/agent/runs/{run_id}/start")


async def test_a_run_starts_once_its_announced_files_are_uploaded(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    announced = await announce(ada, run_id, "in/data.csv", described(DATA))
    upload = announced.pop("upload")
    assert announced == {"path": "in/data.csv", **described(DATA)}
    assert (upload["method"], upload["headers"]["content-length"]) == ("PUT", str(len(DATA)))
    assert 0 < upload["expires_ms"] - time.time() * 1000 <= 300_000
    empty = await announce(ada, run_id, "empty", described(b""))

    refused = await start(ada, run_id)
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (409, "urn:swissbrain:problem:inputs-missing")
    assert problem["missing"] == ["empty", "in/data.csv"]
    assert (await ada.get(f"/agent/runs/{run_id}/files")).json() == {"files": []}

    assert [await send(upload, DATA), await send(empty["upload"], b"")] == [200, 200]
    for _ in range(2):
        assert (await start(ada, run_id)).json()["status"] == "queued"
    files = (await ada.get(f"/agent/runs/{run_id}/files")).json()["files"]
    assert [(file["path"], file["size_bytes"]) for file in files] == [("empty", 0), ("in/data.csv", len(DATA))]
    content = await ada.get(files[1]["href"])
    async with httpx.AsyncClient() as anyone:
        assert (await anyone.get(content.headers["location"])).content == DATA


@pytest.mark.parametrize("path", AWKWARD)
async def test_every_allowed_name_is_announced_uploaded_and_listed(ada: httpx.AsyncClient, path: str) -> None:
    run_id = await create(ada, start=False)
    announced = await announce(ada, run_id, path, described(DATA))
    assert announced["path"] == path
    assert await send(announced["upload"], DATA) == 200
    assert (await start(ada, run_id)).status_code == 200
    (file,) = (await ada.get(f"/agent/runs/{run_id}/files")).json()["files"]
    assert file["path"] == path
    assert (await ada.get(file["href"])).status_code == 307


@pytest.mark.parametrize(
    "path",
    ["..%2Fx", "a/..%2Fb", "a%2F", "%2Fa", ".run/x", "a%00b", "a%5Cb", "a%0Ab", "b%0A", "a%FFb", "x" * 256, "a//b"],
)
async def test_names_that_are_no_workspace_path_are_rejected(ada: httpx.AsyncClient, path: str) -> None:
    run_id = await create(ada, start=False)
    for answer in (
        await ada.put(f"/agent/runs/{run_id}/files/{path}", json=described(DATA)),
        await ada.get(f"/agent/runs/{run_id}/files/{path}"),
    ):
        if (answer.request.method, path) != ("GET", ".run/x"):
            assert (answer.status_code, answer.json()["field"]) == (422, "path")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "$"),
        ({"size_bytes": 1}, "$"),
        ({"sha256": "0" * 64}, "$"),
        ({"size_bytes": -1, "sha256": "0" * 64}, "$.size_bytes"),
        ({"size_bytes": "1", "sha256": "0" * 64}, "$.size_bytes"),
        ({"size_bytes": 1, "sha256": "0" * 63}, "$.sha256"),
        ({"size_bytes": 1, "sha256": "A" * 64}, "$.sha256"),
        ({"size_bytes": 1, "sha256": "0" * 64 + "\n"}, "$.sha256"),
        ({"size_bytes": 1, "sha256": "0" * 64, "md5": "0"}, "$.md5"),
        ({"from_run": "run_x"}, "$"),
        ({"path": "a"}, "$"),
        ({"from_run": "run_x", "path": "../a"}, "$.path"),
        ({"from_run": "run_x", "path": "a", "size_bytes": 1, "sha256": "0" * 64}, "$"),
        ({"size_bytes": 1, "sha256": "0" * 64, "content": "x"}, "$.content"),
    ],
)
async def test_a_bad_description_is_rejected_by_its_field(
    ada: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    run_id = await create(ada, start=False)
    answer = await ada.put(at(run_id, "a"), json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


async def test_the_limits_of_size_and_total_are_exact(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    sha256 = "0" * 64
    for number in range(TOTAL_BYTES // FILE_BYTES):
        await announce(ada, run_id, f"f{number}", {"size_bytes": FILE_BYTES, "sha256": sha256})
    await announce(ada, run_id, "empty", {"size_bytes": 0, "sha256": sha256})
    for path, size_bytes, field in (("one more", 1, "path"), ("f0", FILE_BYTES + 1, "$.size_bytes")):
        answer = await ada.put(at(run_id, path), json={"size_bytes": size_bytes, "sha256": sha256})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:swissbrain:problem:limit-exceeded")
        assert answer.json()["field"] == field
        assert str(FILE_BYTES) in answer.text or str(TOTAL_BYTES) in answer.text


async def test_the_same_content_keeps_its_object_and_other_content_gets_another_one(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    answers = await asyncio.gather(*(announce(ada, run_id, "a", described(DATA)) for _ in range(4)))
    objects = {answer["upload"]["url"].partition("?")[0] for answer in answers}
    assert len(objects) == 1
    assert await send(answers[0]["upload"], DATA) == 200
    other = await announce(ada, run_id, "a", described(b"other"))
    assert other["upload"]["url"].partition("?")[0] not in objects
    assert (await start(ada, run_id)).json()["missing"] == ["a"]
    await announce(ada, run_id, "a", described(DATA))
    assert (await start(ada, run_id)).json()["missing"] == ["a"]


async def test_two_uploads_of_one_file_at_once_leave_the_announced_bytes(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    data = b"x" * 2_000_000
    uploads = [(await announce(ada, run_id, "a", described(data)))["upload"] for _ in range(2)]
    sent = await asyncio.gather(send(uploads[0], data), send(uploads[1], data), send(uploads[0], b"y" * len(data)))
    assert [*sent] == [200, 200, 400]
    assert (await start(ada, run_id)).status_code == 200


async def test_an_interrupted_upload_leaves_the_file_missing(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    upload = (await announce(ada, run_id, "a", described(DATA)))["upload"]
    url = httpx.URL(upload["url"])
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in upload["headers"].items())
    target = url.raw_path.decode()
    writer.write(f"PUT {target} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n{head}\r\n".encode() + DATA[:3])
    writer.write_eof()
    assert b" 200 " not in await reader.readline()
    writer.close()
    assert (await start(ada, run_id)).json()["missing"] == ["a"]
    assert await send(upload, DATA) == 200
    assert (await start(ada, run_id)).status_code == 200


async def test_a_started_run_takes_no_file(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada)
    answer = await ada.put(at(run_id, "a"), json=described(DATA))
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (409, "urn:swissbrain:problem:transition-refused")
    assert problem["run_status"] == "queued"


async def test_a_run_that_starts_beside_announcements_has_only_complete_files(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)

    async def add(number: int) -> bool:
        answer = await ada.put(at(run_id, f"f{number}"), json=described(DATA))
        return answer.status_code == 200 and await send(answer.json()["upload"], DATA) == 200

    async def keep_starting() -> None:
        while (answer := await start(ada, run_id)).status_code == 409:
            assert answer.json()["type"].rpartition(":")[2] in {"inputs-missing", "transition-refused"}

    *added, _ = await asyncio.gather(*map(add, range(10)), keep_starting())
    files = (await ada.get(f"/agent/runs/{run_id}/files")).json()["files"]
    assert {file["path"] for file in files} == {f"f{number}" for number, was_added in enumerate(added) if was_added}


async def test_runs_of_other_users_are_neither_targets_nor_sources(ada: httpx.AsyncClient, stored_edge: Edge) -> None:
    async with client(stored_edge, "bob") as bob, client(stored_edge, "writer") as writer:
        of_bob, of_ada = await create(bob, start=False), await create(ada, start=False)
        copy = {"from_run": of_bob, "path": "a"}
        for answer in (
            await ada.put(at(of_bob, "a"), json=described(DATA)),
            await ada.put(at(of_ada, "a"), json=copy),
            await ada.put(at("run_none", "a"), json=described(DATA)),
            await ada.put(at(of_ada, "a"), json={"from_run": "../x", "path": "a"}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:swissbrain:problem:run-not-found")
        of_writer = (await writer.post("/agent/runs", json={"prompt": "x", "start": False})).json()["run_id"]
        assert (await writer.put(at(of_writer, "a"), json=described(DATA))).status_code == 200
        assert (await writer.put(at(of_writer, "b"), json={"from_run": of_writer, "path": "a"})).status_code == 403


async def test_a_file_of_another_run_is_announced_and_needs_no_upload(
    ada: httpx.AsyncClient, workspaces: Workspaces, worker: SimulatedWorker
) -> None:
    source = await create(ada)
    lease = await worker.claim()
    written = workspaces.run("ada", source, lease.fence, {})
    await written.write("out.csv", DATA)
    await worker.emit(lease, files=written.take_uncommitted())
    run_id = await create(ada, start=False)
    body = {"from_run": source, "path": "out.csv"}
    announced = await announce(ada, run_id, "in.csv", body)
    assert announced == {"path": "in.csv", "from_run": source, "source_path": "out.csv", "upload": None}
    missing = await ada.put(at(run_id, "b"), json={"from_run": source, "path": "none"})
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:swissbrain:problem:file-not-found")
    assert (await start(ada, run_id)).status_code == 200


async def test_a_fork_of_a_run_with_inputs_names_them_and_an_unstarted_one_is_refused(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, start=False)
    upload = (await announce(ada, run_id, "a", described(DATA)))["upload"]
    refused = await ada.post(f"/agent/runs/{run_id}/fork", json={"from_step": 0})
    assert (refused.status_code, refused.json()["run_status"]) == (409, "created")
    assert await send(upload, DATA) == 200
    assert (await start(ada, run_id)).status_code == 200
    fork = (await ada.post(f"/agent/runs/{run_id}/fork", json={"from_step": 0, "start": False})).json()["run_id"]
    (file,) = (await worker.store.inputs(fork)).files.values()
    assert (file.from_run, file.source_path, file.entry.size_bytes) == (run_id, "a", len(DATA))
    replaced = await announce(ada, fork, "a", described(b"other"))
    assert (await start(ada, fork)).json()["missing"] == ["a"]
    assert await send(replaced["upload"], b"other") == 200
    assert (await start(ada, fork)).status_code == 200


async def test_a_run_cancelled_before_its_start_is_retried_only_with_its_files(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    upload = (await announce(ada, run_id, "a", described(DATA)))["upload"]
    assert (await ada.post(f"/agent/runs/{run_id}/cancel")).json()["status"] == "cancelled"
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).json()["missing"] == ["a"]
    assert await send(upload, DATA) == 200
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).json()["status"] == "queued"
    assert len((await ada.get(f"/agent/runs/{run_id}/files")).json()["files"]) == 1


async def test_delete_removes_uploads_and_the_run_takes_no_file_meanwhile(
    ada: httpx.AsyncClient, workspaces: Workspaces, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, start=False)
    upload = (await announce(ada, run_id, "a", described(DATA)))["upload"]
    assert await send(upload, DATA) == 200
    await worker.store.mark_deleting(run_id)
    assert (await ada.put(at(run_id, "b"), json=described(DATA))).status_code == 409
    assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    assert await workspaces.delete_run("ada", run_id) == 0
    assert (await ada.put(at(run_id, "b"), json=described(DATA))).status_code == 404


async def test_the_client_uploads_to_a_store_that_checks_md5(
    worker: SimulatedWorker, rest_settings: RedisRestSettings, s3_settings: S3Settings
) -> None:
    store = Workspaces(replace(s3_settings, upload_checksum="md5"))
    await store.ensure_bucket()
    async with serve(rest_settings, store) as edge, AsyncClient(edge.url, TOKENS["ada"]) as ada:
        run_id = (await ada.create_run(message("hello"), start=False)).run_id
        sent = await ada.upload(run_id, "a.csv", DATA)
        assert sent.upload is not None
        assert {*sent.upload.headers} == {"content-length", "content-md5"}
        assert (await ada.start(run_id)).status == "queued"
        assert await ada.read_bytes(run_id, "a.csv") == DATA
    await asyncio.to_thread(store.close)
