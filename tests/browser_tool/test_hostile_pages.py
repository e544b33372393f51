"""Hostile pages: each is bounded, and the browser can be used after it unless the page has crashed."""

import asyncio
from typing import Any

from infra.contract.execution import ExecLimits
from tests.browser_tool.rig import BrowserBench
from worker.browser.settings import BrowserSettings
from worker.toolkit.base import ToolFailed
from worker.tools.browser import BrowserResult


async def usable(bench: BrowserBench) -> None:
    """Assert that the browser opens another page."""
    opened = await bench.do("open", url="/two", timeout_s=60)
    assert (opened.title, opened.text) == ("Two", "The second page")


async def attempt(bench: BrowserBench, action: str, **args: Any) -> BrowserResult | ToolFailed:
    """Return the result of a call, or its failure, which must leave the session open."""
    try:
        return await bench.do(action, **args)
    except ToolFailed as exc:
        if exc.code not in {"timeout", "browser_failed"}:
            raise
        return exc


async def test_dialogs_are_dismissed(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/dialogs")
    assert (opened.title, opened.text) == ("false,", "ready")
    assert [note.partition(": ")[2] for note in opened.notes] == ["one", "two", "three"]
    endless = await attempt(bench, "open", url="/alerts", timeout_s=1)
    assert "dialog" in str(endless)
    assert len(str(endless)) < 10_000
    await usable(bench)


async def test_a_page_cannot_keep_its_visitor(bench: BrowserBench) -> None:
    await bench.do("open", url="/leave")
    await bench.do("click", selector="button")
    leaving = await bench.do("evaluate", script="setTimeout(() => location = '/two', 0)")
    left = await bench.do("extract")
    assert left.text == "The second page"
    assert "beforeunload" in " ".join([*leaving.notes, *left.notes])


async def test_endless_downloads_are_cancelled(bench: BrowserBench) -> None:
    await bench.do("open", url="/two")
    assert (await bench.fail("download", url="/endless", timeout_s=60)).code == "too_large"
    assert (await bench.fail("download", url="/slow", timeout_s=1)).code == "timeout"
    stored = len(bench.files.content)
    offered = await bench.do("open", url="/offers")
    notes = [*offered.notes, *(await bench.do("extract")).notes]
    assert any("offered a download" in note for note in notes)
    assert len(bench.files.content) == stored
    await usable(bench)


async def test_endless_redirects_end(bench: BrowserBench) -> None:
    before = bench.site.requests.total()
    failed = await bench.fail("open", url="/redirects")
    assert failed.code in {"browser_failed", "timeout"}
    assert bench.site.requests.total() - before < 100
    await usable(bench)
    reloading = await bench.do("open", url="/reloading")
    assert reloading.url.endswith("/reloading")
    await usable(bench)


async def test_pages_that_never_settle_are_left_alone(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/polling")
    assert opened.text == "text"
    assert (await bench.fail("wait", timeout_s=1)).code == "timeout"
    await usable(bench)
    assert (await bench.fail("open", url="/never", timeout_s=0.5)).code == "timeout"
    await usable(bench)


async def test_a_page_that_hangs_is_left(bench: BrowserBench) -> None:
    assert (await bench.fail("open", url="/busy", timeout_s=0.5)).code == "timeout"
    await usable(bench)
    await bench.do("open", url="/later-busy")
    await asyncio.sleep(0.5)
    for action in ("extract", "screenshot", "pdf", "evaluate"):
        args = {"script": "1"} if action == "evaluate" else {}
        assert (await bench.fail(action, timeout_s=0.5, **args)).code == "timeout"
    await usable(bench)


async def test_pages_of_popups_are_few(bench: BrowserBench) -> None:
    await bench.do("open", url="/popups")
    await bench.do("open", url="/popper")
    pages = []
    notes: list[str] = []
    for _ in range(8):
        opened = await bench.do("click", selector="button")
        pages.append(opened.pages)
        notes += opened.notes
    assert pages[0] > 1
    assert max(pages) == 8
    assert "at most 8 may be open" in " ".join(notes)
    opened = await bench.do("open", url="/vanishing")
    popup = await bench.do("click", selector="button")
    await asyncio.sleep(0.5)
    assert (await bench.do("extract")).text in {"opener", "open\nopener", "openopener"}, popup
    await usable(bench)


async def test_huge_pages_are_truncated(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/huge")
    assert (len(opened.title), len(opened.text or ""), opened.text_truncated) == (300, 4096, True)
    assert len((await bench.do("extract")).text or "") == 12 * 1024
    await bench.do("open", url="/links")
    links = (await bench.do("extract")).links or ()
    assert len(links) == 100
    assert {len(link.text) for link in links} == {100}
    assert all("xx" not in link.url for link in links)  # URLs that are too long are left out


async def test_a_page_that_lies_to_scripts_is_bounded(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/lies")
    assert len(opened.text or "") < 5000
    extracted = await attempt(bench, "extract")
    assert len(str(extracted)) < 30_000
    await usable(bench)


async def test_there_are_no_service_workers(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/worker")
    assert opened.title in {"worker", "no worker"}  # a call of `register` succeeds, and does nothing
    assert not bench.site.requests["/sw.js"]


async def test_only_web_pages_are_opened(bench: BrowserBench) -> None:
    texts = []
    for name in ("file", "chrome", "source", "data", "blob"):
        await bench.do("open", url="/schemes")
        clicked = await bench.do("click", selector="button" if name == "blob" else f"#{name}")
        texts += [clicked.text or "", (await bench.do("extract")).text or ""]
    moved = await bench.do("evaluate", script="setTimeout(() => { location.href = 'data:text/html,from data' }, 0)")
    texts += [moved.text or "", (await bench.do("extract")).text or ""]
    assert not any(word in text for text in texts for word in ("root:", "from data", "from blob", "Command Line"))
    await usable(bench)


async def test_another_host_is_not_reached(bench: BrowserBench) -> None:
    opened = await bench.do("open", url="/elsewhere")
    waited = await bench.do("wait")
    assert waited.title == "refused"
    assert "something from other.invalid, which" in " ".join([*opened.notes, *waited.notes])


async def test_a_page_that_takes_all_memory_ends_the_session(fresh: BrowserBench) -> None:
    fresh.use(BrowserSettings(limits=ExecLimits(memory_bytes=800 * 1024**2, processes=2048)))
    await fresh.do("open", url="/two")
    failed = await _until_lost(fresh)
    assert failed.code == "session_lost"
    assert f"the last page was {fresh.site.url}/" in str(failed)
    assert fresh.session.program is None
    again = await fresh.fail("extract")
    assert again.code == "session_lost"


async def _until_lost(bench: BrowserBench) -> ToolFailed:
    failure = await _failure(bench, "open", url="/bomb")
    for _ in range(100):
        if failure is not None and failure.code != "timeout":
            break
        failure = await _failure(bench, "extract", timeout_s=1)
    assert failure is not None
    return failure


async def _failure(bench: BrowserBench, action: str, **args: Any) -> ToolFailed | None:
    try:
        await bench.do(action, **args)
    except ToolFailed as exc:
        return exc
    return None
