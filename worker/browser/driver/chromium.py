"""Chromium with one current page: popups, dialogs, downloads and crashes of hostile pages are bounded here."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, Dialog, Download, Error, Page, Request, async_playwright

MAX_PAGES = 8
MAX_NOTES = 20
MAX_NOTE_CHARS = 300
WIDTH, HEIGHT = 1280, 800
CLOSE_S = 2.0
"""Time for pages to be closed; those that hang are closed in the background."""
MAX_UNREACHED = 50
TUNNEL_REFUSED = "net::ERR_TUNNEL_CONNECTION_FAILED"
DOWNLOADS = "/tmp/downloads"  # noqa: S108
PROFILE = "/tmp/profile"  # noqa: S108

FLAGS = (
    "--no-sandbox",  # the whole program is in a sandbox, which has neither user namespaces nor a setuid helper
    "--proxy-bypass-list=<-loopback>",
    "--disable-quic",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--dns-prefetch-disable",
    "--no-pings",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-breakpad",
    "--no-first-run",
    "--disk-cache-size=33554432",
    "--media-cache-size=1048576",
)


class PageCrashed(Exception):
    """The current page has crashed, or Chromium has ended; the message says which."""


class Chromium:
    """Browser with a current page: the last one opened that is still there."""

    def __init__(self, context: BrowserContext) -> None:
        self._context = context
        self._notes: list[str] = []
        self._crashed: Page | None = None
        self._is_opening = False
        self._unreached: set[str] = set()
        self._closing: set[asyncio.Future[Any]] = set()
        self._expected: asyncio.Future[Download] | None = None
        self._current = context.pages[0]
        for page in context.pages:
            self._watch(page)
        context.on("page", self._opened)

    @classmethod
    @asynccontextmanager
    async def start(cls, options: Mapping[str, Any]) -> AsyncIterator["Chromium"]:
        """Start Chromium (`options`: `executable`) with the proxy of the environment; end it with the context."""
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                PROFILE,
                executable_path=options["executable"],
                headless=True,
                chromium_sandbox=False,
                args=[*FLAGS, f"--proxy-server={os.environ['http_proxy']}"],
                # Playwright lets pages open as many popups as they like.
                ignore_default_args=["--disable-popup-blocking"],
                accept_downloads=True,
                downloads_path=DOWNLOADS,
                service_workers="block",
                viewport={"width": WIDTH, "height": HEIGHT},
            )
            try:
                yield cls(context)
            finally:
                await context.close()

    @property
    def page(self) -> Page:
        """Current page. Raises PageCrashed."""
        if self._crashed is self._current:
            raise PageCrashed("the page crashed")
        return self._current

    @property
    def url(self) -> str:
        """URL of the current page, even if it has crashed."""
        return self._current.url

    @property
    def pages(self) -> int:
        """Number of open pages."""
        return len(self._context.pages)

    async def ready(self) -> Page:
        """Return the current page; an empty one if the last page has closed itself. Raises PageCrashed."""
        if self._current.is_closed():
            pages = self._context.pages
            self._current = pages[-1] if pages else await self._new_page()
        return self.page

    async def _new_page(self) -> Page:
        self._is_opening = True
        try:
            return await self._context.new_page()
        finally:
            self._is_opening = False

    async def fresh_page(self) -> Page:
        """Return an empty page, the only one: whatever the pages before it do, they cannot get in its way.

        The cookies and the storage of their sites remain.
        """
        before = self._context.pages
        self._crashed = None
        self._current = await self._new_page()
        closing = [self._later(page.close()) for page in before]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)
        return self._current

    def take_notes(self) -> list[str]:
        """Return and forget what has happened beside the actions since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def expect_download(self) -> "asyncio.Future[Download]":
        """Return the next download; unexpected ones are cancelled."""
        self._expected = asyncio.get_running_loop().create_future()
        return self._expected

    async def end_downloads(self) -> None:
        """Expect no download any more, and remove the files of those that there were."""
        self._expected = None
        await asyncio.to_thread(shutil.rmtree, DOWNLOADS, ignore_errors=True)
        await asyncio.to_thread(Path(DOWNLOADS).mkdir, exist_ok=True)

    def note(self, text: str) -> None:
        """Note something that the caller should know; beyond MAX_NOTES, notes are dropped."""
        if len(self._notes) < MAX_NOTES:
            self._notes.append(text[:MAX_NOTE_CHARS])

    def _watch(self, page: Page) -> None:
        page.on("dialog", self._dialog)
        page.on("download", self._download)
        page.on("crash", self._crash)
        page.on("close", self._closed)
        page.on("requestfailed", self._request_failed)

    def _opened(self, page: Page) -> None:
        if len(self._context.pages) > MAX_PAGES and not self._is_opening:
            self.note(f"a further page was closed at once: at most {MAX_PAGES} may be open")
            self._later(page.close())
            return
        self._watch(page)
        if self._is_opening:
            return
        self.note("a new page was opened, and is the current one now")
        self._current = page

    def _closed(self, page: Page) -> None:
        pages = self._context.pages
        if page is self._current and pages:
            self.note("the page closed itself; the one before it is the current one now")
            self._current = pages[-1]

    def _crash(self, page: Page) -> None:
        if page is self._current:
            self._crashed = page
        else:
            self.note("a page in the background crashed")
            self._later(page.close())

    def _dialog(self, dialog: Dialog) -> None:
        # A page that asks whether it may be left would keep the user on it.
        leave = dialog.type == "beforeunload"
        self.note(
            f"the page showed a dialog ({dialog.type}), which was {'accepted' if leave else 'dismissed'}: "
            f"{dialog.message}"
        )
        self._later(dialog.accept() if leave else dialog.dismiss())

    def _download(self, download: Download) -> None:
        if self._expected is not None and not self._expected.done():
            self._expected.set_result(download)
            return
        self.note(f"the page offered a download, which was not taken: {download.suggested_filename}")
        self._later(download.cancel())

    def _request_failed(self, request: Request) -> None:
        """Note hosts that the proxy refuses, each once."""
        host = urlsplit(request.url).netloc
        if request.failure == TUNNEL_REFUSED and host not in self._unreached and len(self._unreached) < MAX_UNREACHED:
            self._unreached.add(host)
            self.note(f"the page asked for something from {host}, which it may not reach")

    def _later(self, work: Any) -> "asyncio.Future[None]":
        """Do something in the background; its errors mean that the page has gone meanwhile."""
        task = asyncio.ensure_future(_quietly(work))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


async def _quietly(work: Any) -> None:
    with suppress(Error):
        await work
