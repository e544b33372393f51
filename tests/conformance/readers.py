"""Readers of logs: every method to read a log, each with several connection patterns.

A reader collects the events of one run in the order of arrival, until the log has ended.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import json

from swissbrain import Client
from swissbrain.models import Gap
from tests.browser.browser import Browser, Collected
from tests.chaos.load import persistent
from tests.chaos.processes import ROOT
from tests.chaos.proxy import HOST, Mode, ProxyHost
from tests.conformance.oracle import EventFields

T = TypeVar("T")

TIMEOUT_S = 120.0
PAUSE_S = 0.3
RELOAD_EVENTS = 20
"""Number of events after which the pattern `reload` reconnects."""
LATE_EVENTS = 35
"""Number of events in the log when the pattern `late` connects."""

SERVERS = ("stream", "long poll", "streaming function", "polling function")
METHODS = (*SERVERS, "command", "pages", "EventSource", "EventSource, long poll")
PATTERNS = ("steady", "late", "reload", "truncated")
"""`late` connects in the middle of the log, when its first events are archived. `reload` disconnects each time it has
read RELOAD_EVENTS and reconnects with the last id. Every connection of `truncated` is closed within an event, after a
few events."""
DEFAULT_SELECTION = [
    *((method, "steady") for method in METHODS),
    *(("stream", pattern) for pattern in PATTERNS[1:]),
]

Read = Callable[[str, str], Awaitable[list[EventFields]]]


@dataclass(frozen=True)
class Method:
    """Method to read a log. `reload` reads it with reconnections. Both functions take the address and the run id."""

    url: str
    read: Read
    reload: Read


class Readers:
    """Readers of all methods. `urls`: address of each of SERVERS. Without a `browser`, EventSource is left out."""

    def __init__(self, urls: Mapping[str, str], token: str, browser: Browser | None, proxies: ProxyHost) -> None:
        self.token = token
        self._browser = browser
        self._proxies = proxies
        self._threads = ThreadPoolExecutor(20, "reader")
        client, raw = self._in_thread(self.client), self._in_thread(self.raw)
        self._methods = {name: Method(urls[name], client, raw) for name in SERVERS}
        url = urls["stream"]
        self._methods["command"] = Method(url, self._in_thread(self.command), self._in_thread(self.killed_commands))
        self._methods["pages"] = Method(url, self._in_thread(self.pages), self._in_thread(self.pages))
        if browser:
            self._methods["EventSource"] = Method(url, self.in_browser, self.reloaded)
            self._methods["EventSource, long poll"] = Method(urls["long poll"], self.in_browser, self.reloaded)

    def start(
        self, run_id: str, selected: Iterable[tuple[str, str]] = DEFAULT_SELECTION
    ) -> dict[tuple[str, str], "asyncio.Task[list[EventFields]]"]:
        """Start a reader for each selected pair of method and pattern."""
        return {
            (name, pattern): asyncio.create_task(
                _with_timeout(self._read(self._methods[name], pattern, run_id), name, pattern)
            )
            for name, pattern in selected
            if name in self._methods
        }

    async def _read(self, method: Method, pattern: str, run_id: str) -> list[EventFields]:
        if pattern == "reload":
            return await method.reload(method.url, run_id)
        if pattern == "truncated":
            proxy = await asyncio.to_thread(self._proxies.proxy, urlsplit(method.url).port or 0)
            await asyncio.to_thread(proxy.behave, Mode.TRUNCATE)
            events = await method.read(f"http://{HOST}:{proxy.port}", run_id)
            assert proxy.truncated > 1 or len(events) < LATE_EVENTS
            return events
        if pattern == "late":
            await self._in_thread(self._wait_until_late)(method.url, run_id)
        return await method.read(method.url, run_id)

    def _in_thread(self, collect: Callable[[str, str], T]) -> Callable[[str, str], Awaitable[T]]:
        loop = asyncio.get_running_loop()
        return lambda url, run_id: loop.run_in_executor(self._threads, collect, url, run_id)

    async def in_browser(self, url: str, run_id: str) -> list[EventFields]:
        """Read in a page of another origin, with a stream token."""
        assert self._browser
        return _page_events(await self._browser.collect(url, run_id, key=self.token))

    async def reloaded(self, url: str, run_id: str) -> list[EventFields]:
        """Read in a page that is reloaded repeatedly."""
        assert self._browser
        async with self._browser.watch(url, run_id, key=self.token) as tab:
            while not (collected := await tab.collected()).finished:
                await tab.wait_for_messages_or_end(len(collected.messages) + RELOAD_EVENTS)
                if not (await tab.collected()).finished:
                    await tab.reload()
            return _page_events(collected)

    def client(self, url: str, run_id: str) -> list[EventFields]:
        """Read with the Python client."""
        with Client(url, self.token) as client:
            return list(map(_client_event, client.events(run_id)))

    def raw(self, url: str, run_id: str) -> list[EventFields]:
        """Read with plain HTTP requests; disconnect after some events and reconnect with the last id."""
        events: list[EventFields] = []
        while True:
            before = len(events)
            with closing(self._frames(url, run_id, events)) as frames:
                for kind, event in frames:
                    if kind == "end":
                        return events
                    assert kind == "message", event
                    events.append(event)
                    if len(events) == before + RELOAD_EVENTS:
                        break

    def command(self, url: str, run_id: str) -> list[EventFields]:
        """Read with the command `swissbrain logs --follow --json`."""
        with self._logs(url, run_id, 0) as process:
            text, errors = process.communicate()
            assert process.returncode in {0, 1, 3}, errors
            return [_all_fields(json.decode(line)) for line in text.splitlines()]

    def killed_commands(self, url: str, run_id: str) -> list[EventFields]:
        """Read with the command, killed after some events and started again after the last event."""
        events: list[EventFields] = []
        while True:
            before = len(events)
            with self._logs(url, run_id, before) as process:
                assert process.stdout
                for line in process.stdout:
                    events.append(_all_fields(json.decode(line)))
                    if len(events) == before + RELOAD_EVENTS:
                        process.send_signal(signal.SIGKILL)
                        break
                else:
                    return events

    def pages(self, url: str, run_id: str) -> list[EventFields]:
        """Read JSON pages until a page is marked as done."""
        events: list[EventFields] = []
        with self._http(url) as http:
            while True:
                after = events[-1]["seq"] if events else 0
                body = _get_json(http, f"/agent/logs/{run_id}", {"after": after, "limit": 7})
                assert "gap" not in body
                events += body["events"]
                if body["done"]:
                    return events
                if not body["events"]:
                    time.sleep(PAUSE_S)

    def _wait_until_late(self, url: str, run_id: str) -> None:
        with Client(url, self.token) as client:
            while not (run := persistent(lambda: client.get_run(run_id))).ended and run.last_seq < LATE_EVENTS:
                time.sleep(PAUSE_S)

    def _logs(self, url: str, run_id: str, after: int) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "SWISSBRAIN_API_URL": url, "SWISSBRAIN_TOKEN": self.token}
        command = [sys.executable, "-m", "swissbrain", "logs", "--follow", "--json", "--after", str(after), run_id]
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _frames(
        self, url: str, run_id: str, events: list[EventFields]
    ) -> Generator[tuple[str, EventFields], None, None]:
        """Yield name and data of the SSE frames of one connection, which starts after the last of `events`."""
        last = events[-1]["seq"] if events else 0
        headers = {"Last-Event-ID": str(last), "Accept": "text/event-stream"}
        try:
            with self._http(url) as http, http.stream("GET", f"/agent/logs/{run_id}/stream", headers=headers) as answer:
                if answer.status_code == 204:  # the log has ended before this connection
                    yield "end", {}
                    return
                if answer.status_code != 200:
                    time.sleep(PAUSE_S)
                    return
                kind = "message"
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        yield kind, json.decode(line.removeprefix("data: "))
                        kind = "message"
        except httpx.TransportError:
            time.sleep(PAUSE_S)

    def _http(self, url: str) -> httpx.Client:
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=20.0)


async def _with_timeout(reading: Awaitable[list[EventFields]], method: str, pattern: str) -> list[EventFields]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await reading
    except TimeoutError:
        raise AssertionError(f"the reader '{method}, {pattern}' has not reached the end of the log") from None


def _get_json(http: httpx.Client, path: str, params: Mapping[str, int]) -> EventFields:
    """Repeat the request until the API replies; return the body. Raises AssertionError after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            answer = http.get(path, params=dict(params))
            if answer.status_code == 200:
                body: EventFields = answer.json()
                return body
            assert answer.status_code in {502, 503}, answer.text
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"no reply to {path} within {TIMEOUT_S} s"
        time.sleep(PAUSE_S)


def _page_events(collected: Collected) -> list[EventFields]:
    assert not collected.gaps
    assert not collected.failures
    assert collected.ids == [event["seq"] for event in collected.events]
    return collected.events


def _client_event(item: object) -> EventFields:
    assert not isinstance(item, Gap), item
    return _all_fields(msgspec.to_builtins(item))


def _all_fields(event: EventFields) -> EventFields:
    """Add the fields without a value, which the client omits and the API sends."""
    return {
        "seq": event["seq"],
        "ts": event["ts"],
        "type": event["type"],
        "step": event.get("step"),
        "data": event.get("data", {}),
    }
