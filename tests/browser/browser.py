"""A real browser that collects the logs of runs.

async with Browser() as browser:
    collected = await browser.collect(api_url, run_id, key="the API's token")

The API must allow pages of `browser.origin` (`EDGE_CORS_ORIGINS`) and have a key for stream tokens.
"""

import json
import shutil
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from playwright import async_api as playwright

from tests.support.waiting import until

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "browser"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_S = 90.0
CLOSED = 2


@dataclass
class Collected:
    """What happened in a page, over all its reloads."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    """Id and data of every unnamed event, as the browser delivered it."""
    handed: list[int] = field(default_factory=list)
    """The seqs that `follow` handed out; none of a bare EventSource."""
    gaps: list[dict[str, int]] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    """The data of `end` events."""
    sources: int = 0
    """How many EventSources the page made."""
    opened: int = 0
    """How often one was connected; those beyond `sources` came back by themselves."""
    errors: list[int] = field(default_factory=list)
    """The state after each error: 0 if the browser tries again, CLOSED if not."""
    mints: int = 0
    finished: str | None = None
    """`end`; `refused` for a bare EventSource that is closed without; else the type of the problem."""
    failures: list[str] = field(default_factory=list)
    """Errors that no code of the page has caught."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events."""
        return [json.loads(data) for _, data in self.messages]

    @property
    def ids(self) -> list[int]:
        """The ids of the events."""
        return [int(number) for number, _ in self.messages]

    @classmethod
    def of(cls, noted: list[tuple[str, Any]]) -> "Collected":
        """From what page.html has noted."""
        found: dict[str, list[Any]] = {}
        for kind, value in noted:
            found.setdefault(kind, []).append(value)
        return cls(
            messages=[(number, data) for number, data in found.get("message", [])],
            handed=found.get("event", []),
            gaps=[json.loads(data) for data in found.get("gap", [])],
            ends=[json.loads(data) for data in found.get("end", [])],
            sources=len(found.get("source", [])),
            opened=len(found.get("open", [])),
            errors=found.get("error", []),
            mints=len(found.get("mint", [])),
            finished=next(iter(found.get("finished", [])), None),
            failures=found.get("failed", []),
        )


class Tab:
    """A page that collects. `statuses`: of every answer to it, with the last part of the path, as they came."""

    def __init__(self, page: playwright.Page, api_url: str) -> None:
        self._page = page
        self._api = urlsplit(api_url).netloc
        self.statuses: list[tuple[str, int]] = []
        page.on("response", self._note)

    async def reload(self) -> None:
        """Load the page again; it goes on after the last event it has had."""
        await self._page.reload()

    async def has(self, messages: int) -> None:
        """Wait until so many events have come."""
        await self._until(_MESSAGES, messages)

    async def has_or_is_over(self, messages: int) -> None:
        """Wait until so many events have come, or the page expects nothing more."""
        await self._until(_MESSAGES, messages, or_is_over=True)

    async def opened(self, times: int) -> None:
        """Wait until its EventSources have been connected so often."""
        await self._until("([kind]) => kind === 'open'", times)

    async def failed(self, times: int) -> None:
        """Wait until so many connections of its EventSources have been lost or refused."""
        await self._until("([kind]) => kind === 'error'", times)

    async def answered(self, name: str, status: int) -> None:
        """Wait until something was answered with this status; `name` is the last part of its path."""

        async def said() -> bool:
            return (name, status) in self.statuses

        await until(said, f"{name} is answered with {status}", PATIENCE_S)

    async def finished(self) -> Collected:
        """Wait until the page expects nothing more."""
        await self._until(_FINISHED, 1)
        return await self.collected()

    async def collected(self) -> Collected:
        """What there is by now."""
        return Collected.of(await self._page.evaluate(_NOTED))

    async def _until(self, wanted: str, times: int, *, or_is_over: bool = False) -> None:
        enough = f"(times) => ({_NOTED})().filter({wanted}).length >= times"
        if or_is_over:
            enough += f" || ({_NOTED})().some({_FINISHED})"
        await self._page.wait_for_function(enough, arg=times, polling=50, timeout=PATIENCE_S * 1000)

    def _note(self, response: playwright.Response) -> None:
        url = urlsplit(response.url)
        if url.netloc == self._api and response.request.method != "OPTIONS":
            self.statuses.append((url.path.rpartition("/")[2], response.status))


class Browser:
    """Headless Chromium, and the server of its pages, which is another origin than any API."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
        self._thread = threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.01))
        self._playwright = playwright.async_playwright()
        self._chromium: playwright.Browser
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    async def __aenter__(self) -> Self:
        self._thread.start()
        started = await self._playwright.start()
        self._chromium = await started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._chromium.close()
        await self._playwright.__aexit__(None, None, None)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @asynccontextmanager
    async def page(self) -> AsyncIterator[playwright.Page]:
        """An empty page with a storage of its own."""
        context = await self._chromium.new_context()
        try:
            yield await context.new_page()
        finally:
            await context.close()

    @asynccontextmanager
    async def watch(
        self,
        api_url: str,
        run_id: str,
        *,
        key: str | None = None,
        token: str | None = None,
        after: int = 0,
        expires_s: int | None = None,
        bare: bool = False,
    ) -> AsyncIterator[Tab]:
        """A page that follows a run's log with the code of the documentation, or as `bare` with one EventSource only.

        It mints its tokens, good for `expires_s`, with the API's token `key`; a stream token `token` is used first.
        """
        asked: Mapping[str, Any] = {
            "api": api_url,
            "run": run_id,
            "key": key,
            "token": token,
            "after": after,
            "expires_s": expires_s,
            "bare": bare,
        }
        async with self.page() as page:
            tab = Tab(page, api_url)
            await page.goto(f"{self.origin}/page.html#{quote(json.dumps(asked))}")
            yield tab

    async def collect(self, api_url: str, run_id: str, **how: Any) -> Collected:
        """All that a page gets of a log until it expects nothing more; `how` as in `watch`."""
        async with self.watch(api_url, run_id, **how) as tab:
            return await tab.finished()


_MESSAGES = "([kind]) => kind === 'message'"
_FINISHED = "([kind]) => kind === 'finished'"
_NOTED = """() => Array.from(
    {length: Number(sessionStorage.getItem("length") ?? 0)},
    (_, number) => JSON.parse(sessionStorage.getItem(number)),
)"""


_FILES = {
    "/page.html": (HERE / "page.html", "text/html"),
    "/follow.js": (EXAMPLE / "follow.js", "text/javascript"),
    "/": (EXAMPLE / "index.html", "text/html"),
}


class _Pages(BaseHTTPRequestHandler):
    """The page that collects, and the example."""

    def do_GET(self) -> None:
        path, kind = _FILES.get(self.path, (None, "text/plain"))
        self.send_response(200 if path else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.end_headers()
        if path:
            self.wfile.write(path.read_bytes())

    def log_request(self, *_: object) -> None:
        """Tell nobody."""
