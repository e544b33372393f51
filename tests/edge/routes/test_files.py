"""Files of a run, in a real object store."""

import asyncio
import time

import httpx
import pytest

from infra.contract.errors import FileMissing
from infra.settings import RedisRestSettings, S3Settings
from infra.workspace import Workspaces
from tests.edge.stack import TOKENS, Edge, SimulatedWorker, client, create, serve


async def raw_status(edge: Edge, path: str) -> int:
    """Return the status of a GET whose path the client has not normalised."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rsplit(":", 1)[1]))
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKENS['ada']}\r\n\r\n"
    writer.write(head.encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


async def test_files_are_listed_fetched_and_deleted(
    stored_edge: Edge, workspaces: Workspaces, worker: SimulatedWorker
) -> None:
    async with client(stored_edge, "ada") as ada, client(stored_edge, "bob") as bob, httpx.AsyncClient() as anyone:
        run_id = await create(ada)
        base = f"/agent/runs/{run_id}/files"
        assert (await ada.get(base)).json() == {"files": []}
        lease = await worker.claim()
        written = workspaces.run("ada", run_id, lease.fence, {})
        await written.write("out/chart 1?#%.svg", b"<svg/>")
        await written.write("data.csv", b"a,b\n1,2\n")
        assert (await ada.get(base)).json() == {"files": []}
        await worker.emit(lease, files=written.take_uncommitted())
        files = (await ada.get(base)).json()["files"]
        assert [(file["path"], file["size_bytes"]) for file in files] == [("data.csv", 8), ("out/chart 1?#%.svg", 6)]
        for file, content in zip(files, (b"a,b\n1,2\n", b"<svg/>"), strict=True):
            answer = await ada.get(file["href"])
            assert answer.status_code == 307
            assert answer.headers["cache-control"] == "no-store"
            assert (await anyone.get(answer.headers["location"])).content == content
            assert (await bob.get(file["href"])).status_code == 404
            head = await ada.head(file["href"], follow_redirects=True)
            assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")
            assert head.headers["cache-control"] == "no-store"
            assert (await bob.head(file["href"])).status_code == 404
        assert (await ada.head(f"{base}/none.txt")).status_code == 404
        missing = await ada.get(f"{base}/none.txt")
        assert (missing.status_code, missing.json()["type"]) == (404, "urn:swissbrain:problem:file-not-found")
        await worker.finish(lease)
        assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
        with pytest.raises(FileMissing):
            await written.read("data.csv")


async def test_the_link_of_a_file_can_be_had_as_json_and_inline(
    stored_edge: Edge, workspaces: Workspaces, worker: SimulatedWorker
) -> None:
    async with client(stored_edge, "ada") as ada, httpx.AsyncClient() as anyone:
        run_id = await create(ada)
        base = f"/agent/runs/{run_id}/files"
        lease = await worker.claim()
        written = workspaces.run("ada", run_id, lease.fence, {})
        for path in ("plot.png", "page.html", "data.json"):
            await written.write(path, b"content")
        await worker.emit(lease, files=written.take_uncommitted())

        async def link(path: str, **query: str) -> httpx.Response:
            return await ada.get(f"{base}/{path}", params=query, headers={"Accept": "application/json"})

        for path, query, kind, disposition in (
            ("plot.png", {}, "application/octet-stream", "attachment"),
            ("plot.png", {"disposition": "attachment"}, "application/octet-stream", "attachment"),
            ("plot.png", {"disposition": "inline"}, "image/png", "inline"),
            ("data.json", {"disposition": "inline"}, "application/json", "inline"),
            ("page.html", {}, "application/octet-stream", "attachment"),
        ):
            before = time.time()
            answer = await link(path, **query)
            found = answer.json()
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert (found["content_type"], found["size_bytes"]) == (kind, 7)
            assert before + 299 <= found["expires_ms"] / 1000 <= time.time() + 300
            content = await anyone.get(found["url"])
            assert (content.content, content.headers["content-type"]) == (b"content", kind)
            assert content.headers["content-disposition"].startswith(f"{disposition}; ")
            head = await ada.head(f"{base}/{path}", params=query)
            assert (head.status_code, head.headers["content-type"]) == (200, kind)
            redirected = await ada.get(f"{base}/{path}", params=query)
            assert redirected.status_code == 307
            content = await anyone.get(redirected.headers["location"])
            assert content.headers["content-disposition"].startswith(f"{disposition}; ")
        for path, query, field in (
            ("page.html", {"disposition": "inline"}, "disposition"),
            ("plot.png", {"disposition": "shown"}, "disposition"),
            ("plot.png", {"inline": "1"}, "inline"),
        ):
            answer = await link(path, **query)
            assert (answer.status_code, answer.json()["field"]) == (422, field)
            assert (await ada.head(f"{base}/{path}", params=query)).status_code == 422
            assert "allowed" in answer.json()["detail"]
        missing = await link("none.txt")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("application/JSON; charset=utf-8", 200),
        ("text/html, application/json;q=0.9", 200),
        ("application/json, */*;q=0.5", 200),
        ("*/*", 307),
        ("", 307),
        ("application/json, text/plain, */*", 307),
        ("application/json;q=0", 307),
        ("application/json;q=0.1, application/*", 307),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 307),
        (",;q=x,application/json;q=many", 200),
    ],
)
async def test_only_a_client_that_prefers_json_gets_the_link_as_json(
    stored_edge: Edge, workspaces: Workspaces, worker: SimulatedWorker, accept: str, status: int
) -> None:
    async with client(stored_edge, "ada") as ada:
        run_id = await create(ada)
        lease = await worker.claim()
        written = workspaces.run("ada", run_id, lease.fence, {})
        await written.write("a.txt", b"x")
        await worker.emit(lease, files=written.take_uncommitted())
        answer = await ada.get(f"/agent/runs/{run_id}/files/a.txt", headers={"Accept": accept})
        assert answer.status_code == status


async def test_paths_that_leave_the_workspace_are_rejected(stored_edge: Edge) -> None:
    async with client(stored_edge, "ada") as ada:
        run_id = await create(ada)
        base = f"/agent/runs/{run_id}/files"
        for path in ("../x", "%2e%2e%2fx", "a/../../x", "..%2f..%2fx", "a//b", "./x", "", "a%00b", "a%5cb", "%2fetc"):
            assert await raw_status(stored_edge, f"{base}/{path}") == 422, path
        answer = await ada.get(f"{base}/%2e%2e%2fx")
        assert (answer.status_code, answer.json()["field"]) == (422, "path")


async def test_a_deletion_without_the_object_store_gets_503(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    unreachable = Workspaces(S3Settings("b", "r", "a", "s", "http://127.0.0.1:9"))
    async with serve(rest_settings, unreachable) as edge, client(edge, "ada") as ada:
        run_id = await create(ada)
        assert (await ada.get(f"/agent/runs/{run_id}/files")).status_code == 200
        await ada.post(f"/agent/runs/{run_id}/cancel")
        answer = await ada.delete(f"/agent/runs/{run_id}")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:swissbrain:problem:files-unavailable")
        assert (await ada.get(f"/agent/runs/{run_id}")).status_code == 200
    await asyncio.to_thread(unreachable.close)
