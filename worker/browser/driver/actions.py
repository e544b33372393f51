"""Actions of the browser tool: each is performed on the current page within its time, and never raises."""

import asyncio
import os
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Download, Error, Locator, Page
from playwright.async_api import TimeoutError as PlaywrightTimeout

from worker.browser.driver.chromium import DOWNLOADS, Chromium, PageCrashed
from worker.browser.driver.reading import read_links, read_text, read_title

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_VALUE_CHARS = 8 * 1024
MAX_MESSAGE_CHARS = 600
SUMMARY_CHARS = 4 * 1024
TEXT_CHARS = 12 * 1024
SETTLE_MS = 2000
"""Longest wait for a page to load completely after an action; many pages never do."""
BEGIN_S = 0.1
"""Time for a page to begin what an action has set off, such as a navigation."""
LOOK_S = 0.05
READING_S = 8.0
"""Time for reading the page after an action has succeeded; a page that hangs is returned without text."""

REPLACED = "Execution context was destroyed"
"""Text of the error of reading a page that is being replaced by another one."""
DOWNLOAD_STARTS = "Download is starting"
"""Text of the error of a navigation that becomes a download."""

T = TypeVar("T")


class ActionFailed(Exception):
    """Failure with a code for the caller of the tool."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ActionOutcome:
    """Reply to a request: its head, and the bytes of a file."""

    head: dict[str, Any]
    file: bytes = b""


class Actions:
    """Actions on one browser."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium

    async def perform(self, request: Mapping[str, Any]) -> ActionOutcome:
        """Perform one action; the outcome of a failure has the fields `error` and `message`."""
        try:
            outcome = await self._perform(request)
        except ActionFailed as exc:
            outcome = ActionOutcome({"error": exc.code, "message": str(exc)})
        except (TimeoutError, PlaywrightTimeout) as exc:
            seconds = f"{request['timeout_s']:g} s (`timeout_s`)"
            outcome = ActionOutcome({"error": "timeout", "message": f"not done after {seconds}{_details(exc)}"})
        except PageCrashed as exc:
            outcome = ActionOutcome({"error": "session_lost", "message": str(exc)})
        except Error as exc:
            outcome = ActionOutcome({"error": "browser_failed", "message": _reason(exc)})
        try:
            _ = self._chromium.page
        except PageCrashed as exc:
            outcome = ActionOutcome({"error": "session_lost", "message": str(exc)})
        facts = {"url": self._chromium.url, "pages": self._chromium.pages, "notes": self._chromium.take_notes()}
        return ActionOutcome({**outcome.head, **facts}, outcome.file)

    async def _perform(self, request: Mapping[str, Any]) -> ActionOutcome:
        end_s = time.monotonic() + request["timeout_s"]
        opens = request["action"] == "open"
        page = await _within(self._chromium.fresh_page() if opens else self._chromium.ready(), end_s)
        match request["action"]:
            case "open":
                await page.goto(request["url"], wait_until="domcontentloaded", timeout=_left_ms(end_s))
            case "click":
                await page.locator(request["selector"]).click(timeout=_left_ms(end_s))
            case "type":
                await _type(page.locator(request["selector"]), request, end_s)
            case "select":
                await page.locator(request["selector"]).select_option(request["values"], timeout=_left_ms(end_s))
            case "wait":
                await _wait(page, request.get("selector"), end_s)
            case "extract":
                return await self._extract(page, request.get("selector"), end_s)
            case "screenshot":
                return await self._screenshot(page, request, end_s)
            case "pdf":
                content = await _within(page.pdf(print_background=True), end_s)
                return await self._file(content, "application/pdf")
            case "download":
                return await self._download(page, request, end_s)
            case _:
                value = await _within(page.evaluate(request["script"]), end_s)
                return ActionOutcome({**await self._summary(), "value": str(value)[:MAX_VALUE_CHARS]})
        return ActionOutcome(await self._settled())

    async def _settled(self) -> dict[str, Any]:
        """Wait until the page has loaded, but not for long, and return what it shows."""
        await asyncio.sleep(BEGIN_S)
        with suppress(Error):
            await (await self._chromium.ready()).wait_for_load_state("load", timeout=SETTLE_MS)
        return await self._summary()

    async def _summary(self, chars: int = SUMMARY_CHARS) -> dict[str, Any]:
        page = await self._chromium.ready()
        summary: dict[str, Any] = {}
        # A page that is being replaced, or that hangs, is no failure of the action.
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(READING_S):
                summary["title"] = await read_title(page)
                summary["text"], summary["text_truncated"] = await read_text(page, None, chars)
        return summary

    async def _extract(self, page: Page, selector: str | None, end_s: float) -> ActionOutcome:
        if selector:
            await page.locator(selector).first.wait_for(state="attached", timeout=_left_ms(end_s))
        (text, truncated), links, title = await _within(_read(page, selector), end_s)
        return ActionOutcome({"title": title, "text": text, "text_truncated": truncated, "links": links})

    async def _screenshot(self, page: Page, request: Mapping[str, Any], end_s: float) -> ActionOutcome:
        left_ms = _left_ms(end_s)
        if selector := request.get("selector"):
            content = await page.locator(selector).screenshot(type="png", timeout=left_ms)
        else:
            content = await page.screenshot(type="png", full_page=request.get("full_page", False), timeout=left_ms)
        return await self._file(content, "image/png")

    async def _file(self, content: bytes, content_type: str) -> ActionOutcome:
        if len(content) > MAX_FILE_BYTES:
            raise ActionFailed("too_large", f"the file has {len(content)} bytes; allowed are {MAX_FILE_BYTES}")
        return ActionOutcome({**await self._summary(chars=0), "content_type": content_type}, content)

    async def _download(self, page: Page, request: Mapping[str, Any], end_s: float) -> ActionOutcome:
        expected = self._chromium.expect_download()
        try:
            if url := request.get("url"):
                # A navigation that becomes a download fails, as it does for a page that is not there.
                problem = await _problem(page.goto(url, wait_until="commit", timeout=_left_ms(end_s)))
                await asyncio.sleep(BEGIN_S)
                if not expected.done() and (problem is None or DOWNLOAD_STARTS not in str(problem)):
                    raise ActionFailed("browser_failed", _no_download(problem))
            else:
                await page.locator(request["selector"]).click(timeout=_left_ms(end_s))
            download = await _within(expected, end_s)
            content = await self._content(download, end_s)
            return ActionOutcome(
                {**await self._summary(chars=0), "file_name": download.suggested_filename[-200:]}, content
            )
        finally:
            await self._chromium.end_downloads()

    async def _content(self, download: Download, end_s: float) -> bytes:
        """Return the bytes of a download once it is complete; cancel one that is too large or too slow."""
        path = asyncio.ensure_future(download.path())
        try:
            while not path.done():
                if _size_of_downloads() > MAX_FILE_BYTES:
                    raise ActionFailed("too_large", f"the download is too large; allowed are {MAX_FILE_BYTES} bytes")
                if time.monotonic() > end_s:
                    raise TimeoutError
                await asyncio.wait({path}, timeout=LOOK_S)
            file = path.result()
        except BaseException:
            path.cancel()
            with suppress(Error):
                await download.cancel()
            raise
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ActionFailed("too_large", f"the download is too large; allowed are {MAX_FILE_BYTES} bytes")
        return await asyncio.to_thread(file.read_bytes)


async def _read(page: Page, selector: str | None) -> tuple[tuple[str, bool], list[dict[str, str]], str]:
    """Return text, links and title; again, if the page is replaced by another one meanwhile."""
    while True:
        try:
            text, links = await read_text(page, selector, TEXT_CHARS), await read_links(page, selector)
            return text, links, await read_title(page)
        except Error as exc:
            if REPLACED not in str(exc):
                raise
            await asyncio.sleep(LOOK_S)


async def _type(locator: Locator, request: Mapping[str, Any], end_s: float) -> None:
    await locator.fill(request["text"], timeout=_left_ms(end_s))
    if request.get("enter"):
        await locator.press("Enter", timeout=_left_ms(end_s))


async def _wait(page: Page, selector: str | None, end_s: float) -> None:
    if selector:
        await page.locator(selector).first.wait_for(state="visible", timeout=_left_ms(end_s))
    else:
        await page.wait_for_load_state("networkidle", timeout=_left_ms(end_s))


async def _problem(work: Awaitable[Any]) -> Error | None:
    """Return the error of a navigation, unless it took too long."""
    try:
        await work
    except PlaywrightTimeout:
        raise
    except Error as exc:
        return exc
    return None


async def _within(work: Awaitable[T], end_s: float) -> T:
    """Await a call of Playwright that takes no timeout."""
    return await asyncio.wait_for(work, max(0.001, end_s - time.monotonic()))


def _left_ms(end_s: float) -> float:
    # 0 would be no timeout at all.
    return max(1.0, (end_s - time.monotonic()) * 1000)


def _size_of_downloads() -> int:
    sizes = []
    with suppress(OSError):
        for entry in os.scandir(DOWNLOADS):
            with suppress(OSError):
                sizes.append(Path(entry.path).stat().st_size)
    return sum(sizes)


def _no_download(problem: Error | None) -> str:
    return f"no download: {_first_lines(problem)}" if problem else "the URL is a page, not a download; use `open`"


def _details(exc: Exception) -> str:
    text = _first_lines(exc) if isinstance(exc, Error) else ""
    return f": {text}" if text else ""


def _reason(exc: Error) -> str:
    if DOWNLOAD_STARTS in str(exc):
        return "the URL is no page, but a download; use the action `download`"
    return _first_lines(exc)


def _first_lines(exc: Exception) -> str:
    """Return the message of Playwright without its call log, in one line."""
    text = str(exc).partition("Call log:")[0].strip() or str(exc)
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]
