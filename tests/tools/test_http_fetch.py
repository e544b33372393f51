"""Tool `http_fetch`: files and results of answers, and its errors."""

from typing import Any

import pytest

from infra.contract.errors import LimitExceeded
from infra.settings import Env
from tests.support.scripted_http import Wire
from tests.support.servers import web_site_fixture
from tests.support.web_site import Site, answer
from tests.tools.conftest import FILE_BYTES
from tests.tools.kit import Kit
from worker.fetch.settings import FetchSettings
from worker.registry import registry
from worker.tools.http_fetch import HttpFetchResult

PAGE = b"<title>Tea</title><p>caf\xe9 <a href=/x>more</a><script>no</script>"


site = web_site_fixture("module")


@pytest.fixture
def web(kit: Kit, site: Site) -> Kit:
    """Kit whose worker may fetch from the site."""
    allowed = {"HTTP_FETCH_PRIVATE_HOSTS": f"127.0.0.1:{site.port}", "HTTP_FETCH_MAX_BYTES": str(30_000_000)}
    kit.tools = registry(FetchSettings.from_env(Env(allowed)))
    assert kit.tools["http_fetch"].ready
    return kit


async def fetch(kit: Kit, site: Site, path: str, page: Any, **args: Any) -> HttpFetchResult:
    site.pages[path] = page
    return await kit.call("http_fetch", HttpFetchResult, url=f"{site.url}{path}", **args)


async def test_a_page_becomes_a_file_and_text(web: Kit, site: Site) -> None:
    result = await fetch(web, site, "/", answer(PAGE, Content_Type="text/html; charset=latin1"))
    assert result == HttpFetchResult(
        status=200,
        url=f"{site.url}/",
        content_type="text/html; charset=latin1",
        size_bytes=len(PAGE),
        path="fetched/step-0.html",
        text=f"Tea\ncafé more ({site.url}/x)",
    )
    assert await web.files.read("fetched/step-0.html") == PAGE
    assert web.context.written == ["fetched/step-0.html"]
    line = f"200 text/html; charset=latin1, {len(PAGE)} bytes, stored as fetched/step-0.html"
    assert web.context.lines == [("stdout", line)]


@pytest.mark.parametrize(
    ("path", "kind", "suffix"),
    [
        ("/a", "application/json", ".json"),
        ("/a.csv", "text/plain;charset=utf-8", ".txt"),
        ("/a.csv", "application/octet-stream", ".csv"),
        ("/a.TGZ?b.c", "", ".tgz"),
        ("/a", "image/jpeg", ".jpg"),
        ("/a.%2e%2e%2f", "x/unknown", ".bin"),
        ("/a.b/c", "", ".bin"),
    ],
)
async def test_the_suffix_of_the_file_follows_the_type(web: Kit, site: Site, path: str, kind: str, suffix: str) -> None:
    result = await fetch(web, site, path, answer(b"\xff\0", Content_Type=kind))
    assert (result.path, result.text) == (f"fetched/step-0{suffix}", None if kind[:4] != "text" else "\ufffd\0")


async def test_the_body_is_stored_under_a_chosen_path(web: Kit, site: Site) -> None:
    result = await fetch(web, site, "/", answer(b"1,2"), save_as="data/table.csv")
    assert (result.path, result.text, result.content_type) == ("data/table.csv", "1,2", "")
    result = await fetch(web, site, "/", answer(b"", 404), save_as="data/table.csv")
    assert (result.status, result.path, result.text, result.size_bytes) == (404, "data/table.csv", None, 0)
    assert await web.files.read("data/table.csv") == b""


async def test_an_answer_without_a_body_becomes_no_file(web: Kit, site: Site) -> None:
    result = await fetch(web, site, "/", answer(b"", 204))
    assert (result.status, result.path) == (204, None)
    result = await fetch(web, site, "/", answer(Content_Length="123"), method="HEAD", save_as="a")
    assert (result.size_bytes, result.path) == (123, None)
    assert await web.files.list() == []


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
async def test_long_text_is_truncated_in_the_result_alone(web: Kit, site: Site, kind: str) -> None:
    body = "<p>grüezi</p>\n".encode() * 20_000
    result = await fetch(web, site, "/", answer(body, Content_Type=f"{kind}; charset=utf-8"))
    assert result.text
    assert (result.size_bytes, result.text_truncated) == (len(body), True)
    assert 16_380 < len(result.text.encode()) <= 16_384
    assert await web.files.read(result.path or "") == body


async def test_a_post_sends_text_unless_it_says_otherwise(web: Kit, site: Site) -> None:
    site.requests.clear()
    for headers in ({}, {"Content-TYPE": "application/json"}):
        await fetch(web, site, "/", answer(b"ok"), method="POST", body="ü", headers=headers)
    assert [(r.body, r.headers["content-type"]) for r in site.requests] == [
        ("ü".encode(), "text/plain; charset=utf-8"),
        ("ü".encode(), "application/json"),
    ]


async def test_a_worker_without_hosts_names_the_setting(kit: Kit, site: Site) -> None:
    code, message, _ = await kit.failed("http_fetch", url=site.url)
    assert code == "fetch_not_allowed"
    assert "HTTP_FETCH_HOSTS" in message
    assert not kit.tools["http_fetch"].ready


async def test_errors_have_codes(web: Kit, site: Site) -> None:
    assert (await web.failed("http_fetch", url="http://example.org/"))[0] == "fetch_not_allowed"
    kit_tools = registry(FetchSettings.from_env(Env({"HTTP_FETCH_HOSTS": f"127.0.0.1:{site.port}"})))
    web.tools = kit_tools
    assert (await web.failed("http_fetch", url=site.url))[0] == "address_not_allowed"


async def test_a_body_larger_than_a_file_may_be_fails(web: Kit, site: Site) -> None:
    with pytest.raises(LimitExceeded):
        await fetch(web, site, "/", answer(bytes(FILE_BYTES + 1)))


def drip(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        wire.send(b"x")
        wire.silence(0.02)


@pytest.mark.parametrize("page", [drip, Wire.silence])
async def test_a_slow_answer_ends_at_the_timeout(web: Kit, site: Site, page: Any) -> None:
    site.pages["/"] = page
    code, message, _ = await web.failed("http_fetch", url=f"{site.url}/", timeout_s=0.5)
    assert (code, message) == ("timeout", "the answer was not complete after 0.5 s (`timeout_s`)")
