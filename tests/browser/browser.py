"""Real browser that collects the logs of runs.

async with Browser() as browser:
    collected = await browser.collect(api_url, run_id, key="the API's token")

The API must allow pages of `browser.origin` (`EDGE_CORS_ORIGINS`) and have a key for stream tokens.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from tests.support.waiting import until

if TYPE_CHECKING:
    from playwright import async_api as playwright

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
TIMEOUT_S = 90.0
CLOSED = 2
"""Value of `EventSource.readyState` when the browser does not reconnect."""


def program() -> str | None:
    """Return the path of a Chromium. One without windows is preferred: the same engine, for half the processor time."""
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")


@dataclass
class Collected:
    """Events and errors that a page recorded, over all its reloads."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    """Id and data of every unnamed event, as the browser delivered it."""
    delivered: list[int] = field(default_factory=list)
    """Sequence numbers that `follow` passed to its callback; empty for a bare EventSource."""
    gaps: list[dict[str, int]] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    """Data of `end` events."""
    sources: int = 0
    """Number of EventSources that the page created."""
    opened: int = 0
    """Number of connections. Those beyond `sources` are reconnections by the browser."""
    errors: list[int] = field(default_factory=list)
    """`readyState` after each error: 0 if the browser reconnects, else CLOSED."""
    mints: int = 0
    """Number of stream tokens that the page requested."""
    finished: str | None = None
    """`end`; `refused` for a bare EventSource that was closed without `end`; else the type of the problem."""
    failures: list[str] = field(default_factory=list)
    """Errors that the code of the page did not catch."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """Decoded data of the messages."""
        return [json.loads(data) for _, data in self.messages]

    @property
    def ids(self) -> list[int]:
        """Ids of the messages."""
        return [int(number) for number, _ in self.messages]

    @classmethod
    def of(cls, recorded: list[tuple[str, Any]]) -> Collected:
        """Build from the pairs of kind and value that page.html recorded."""
        found: dict[str, list[Any]] = {}
        for kind, value in recorded:
            found.setdefault(kind, []).append(value)
        return cls(
            messages=[(number, data) for number, data in found.get("message", [])],
            delivered=found.get("event", []),
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
    """Page that collects a log. `statuses` lists the last path segment and the status of every response, in order."""

    def __init__(self, page: playwright.Page, api_url: str) -> None:
        self._page = page
        self._api = urlsplit(api_url).netloc
        self.statuses: list[tuple[str, int]] = []
        page.on("response", self._record)

    async def reload(self) -> None:
        """Reload the page, which continues after the last event that it received."""
        await self._page.reload()

    async def wait_for_messages(self, messages: int) -> None:
        """Wait until the page has received that number of events."""
        await self._until(_MESSAGES, messages)

    async def wait_for_messages_or_end(self, messages: int) -> None:
        """Wait until the page has received that number of events, or has finished."""
        await self._until(_MESSAGES, messages, or_finished=True)

    async def wait_for_connections(self, times: int) -> None:
        """Wait until the EventSources of the page have connected that number of times."""
        await self._until("([kind]) => kind === 'open'", times)

    async def wait_for_errors(self, times: int) -> None:
        """Wait until that number of connections of the EventSources have been lost or refused."""
        await self._until("([kind]) => kind === 'error'", times)

    async def wait_for_status(self, name: str, status: int) -> None:
        """Wait until a response has had this status; `name` is the last segment of its path."""

        async def has_status() -> bool:
            return (name, status) in self.statuses

        await until(has_status, f"the response to {name} has status {status}", TIMEOUT_S)

    async def wait_for_end(self) -> Collected:
        """Wait until the page has finished: after `end`, or after an error that it does not retry."""
        await self._until(_FINISHED, 1)
        return await self.collected()

    async def collected(self) -> Collected:
        """Return the records so far."""
        return Collected.of(await self._page.evaluate(_RECORDS))

    async def _until(self, matches: str, count: int, *, or_finished: bool = False) -> None:
        condition = f"(count) => ({_RECORDS})().filter({matches}).length >= count"
        if or_finished:
            condition += f" || ({_RECORDS})().some({_FINISHED})"
        await self._page.wait_for_function(condition, arg=count, polling=50, timeout=TIMEOUT_S * 1000)

    def _record(self, response: playwright.Response) -> None:
        url = urlsplit(response.url)
        if url.netloc == self._api and response.request.method != "OPTIONS":
            self.statuses.append((url.path.rpartition("/")[2], response.status))


class Browser:
    """Headless Chromium, and a server of its pages, whose origin differs from that of every API."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
        self._thread = threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.01))
        # Here, because the import takes 0.2 s, which each process of a test run would need.
        from playwright.async_api import async_playwright

        self._playwright = async_playwright()
        self._chromium: playwright.Browser
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    async def __aenter__(self) -> Self:
        self._thread.start()
        started = await self._playwright.start()
        self._chromium = await started.chromium.launch(executable_path=program(), args=FLAGS)
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
        """Open an empty page with separate storage."""
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
        """Open a page that follows a run's log with the documented code, or if `bare` with one EventSource only.

        The page requests stream tokens, valid for `expires_s`, with the API token `key`. A stream token `token` is
        used first.
        """
        options: Mapping[str, Any] = {
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
            await page.goto(f"{self.origin}/page.html#{quote(json.dumps(options))}")
            yield tab

    async def collect(self, api_url: str, run_id: str, **options: Any) -> Collected:
        """Follow a log in a page until the page has finished; return its records. `options`: as of `watch`."""
        async with self.watch(api_url, run_id, **options) as tab:
            return await tab.wait_for_end()


_MESSAGES = "([kind]) => kind === 'message'"
_FINISHED = "([kind]) => kind === 'finished'"
_RECORDS = """() => Array.from(
    {length: Number(sessionStorage.getItem("length") ?? 0)},
    (_, number) => JSON.parse(sessionStorage.getItem(number)),
)"""


_FILES = {
    "/page.html": (HERE / "page.html", "text/html"),
    "/follow.js": (EXAMPLE / "follow.js", "text/javascript"),
    "/": (EXAMPLE / "index.html", "text/html"),
}


class _Pages(BaseHTTPRequestHandler):
    """Serves the page that collects, and the example of the documentation."""

    def do_GET(self) -> None:
        path, kind = _FILES.get(self.path, (None, "text/plain"))
        self.send_response(200 if path else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.end_headers()
        if path:
            self.wfile.write(path.read_bytes())

    def log_request(self, *_: object) -> None:
        """Suppress the default log line on stderr."""
