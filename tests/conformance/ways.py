"""Every way to read a log. Each collects a run's events, as they came, until the log has ended."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import json

from swissbrain.client import Client
from swissbrain.models import Gap
from tests.browser.browser import Browser
from tests.chaos.processes import ROOT
from tests.conformance.oracle import Seen

PATIENCE_S = 120.0
PAUSE_S = 0.1
RELOAD = 10
"""`reload` leaves after so many events, and comes back; `cut` leaves in the middle of one."""
LATE_S = 1.0


class Ways:
    """All of them, by the addresses of two APIs and of two Lambda functions, one of each for each mode.

    Without a `browser`, without that one.
    """

    def __init__(
        self,
        stream_url: str,
        longpoll_url: str,
        streaming_url: str,
        polling_url: str,
        token: str,
        browser: Browser | None,
    ) -> None:
        self.stream_url = stream_url
        self.longpoll_url = longpoll_url
        self._browser = browser
        self.token = token
        self._threads = ThreadPoolExecutor(20, "reader")
        self._all: Mapping[str, Callable[[str], list[Seen]]] = {
            "client": partial(self.client, stream_url),
            "late": self.late,
            "long poll": partial(self.client, longpoll_url),
            "streaming function": partial(self.client, streaming_url),
            "polling function": partial(self.client, polling_url),
            "command": self.command,
            "pages": self.pages,
            "reload": self.reload,
            "cut": self.cut,
        }

    def begin(self, run_id: str, leave_out: Collection[str] = ()) -> dict[str, "asyncio.Task[list[Seen]]"]:
        """Read in all of these ways at once."""
        loop = asyncio.get_running_loop()
        reading = {
            name: asyncio.create_task(_patiently(loop.run_in_executor(self._threads, collect, run_id), name))
            for name, collect in self._all.items()
            if name not in leave_out
        }
        if self._browser:
            for name, url in (("EventSource", self.stream_url), ("EventSource, long poll", self.longpoll_url)):
                seen = asyncio.ensure_future(self._in_browser(self._browser, url, run_id))
                reading[name] = asyncio.create_task(_patiently(seen, name))
        return reading

    async def _in_browser(self, browser: Browser, url: str, run_id: str) -> list[Seen]:
        """A page of another origin, with a stream token."""
        collected = await browser.collect(url, run_id, key=self.token)
        assert not collected.gaps
        assert not collected.failures
        assert collected.ids == [event["seq"] for event in collected.events]
        return collected.events

    def client(self, url: str, run_id: str, after: int = 0) -> list[Seen]:
        """The Python client."""
        with Client(url, self.token) as client:
            return list(map(_builtin, client.events(run_id, after=after)))

    def late(self, run_id: str) -> list[Seen]:
        """Somebody who comes later."""
        time.sleep(LATE_S)
        return self.client(self.stream_url, run_id)

    def command(self, run_id: str) -> list[Seen]:
        """`swissbrain logs -f --json`."""
        environment = {**os.environ, "SWISSBRAIN_API_URL": self.stream_url, "SWISSBRAIN_TOKEN": self.token}
        command = [sys.executable, "-m", "swissbrain", "logs", "--follow", "--json", run_id]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
        assert done.returncode in {0, 1, 3}, done.stderr
        return [_whole(json.decode(line)) for line in done.stdout.splitlines()]

    def pages(self, run_id: str) -> list[Seen]:
        """JSON, a page at a time, until it is done."""
        seen: list[Seen] = []
        with self._http() as http:
            while True:
                after = seen[-1]["seq"] if seen else 0
                body = _persistently(http, f"/agent/logs/{run_id}", {"after": after, "limit": 7})
                assert "gap" not in body
                seen += body["events"]
                if body["done"]:
                    return seen
                if not body["events"]:
                    time.sleep(PAUSE_S)

    def reload(self, run_id: str) -> list[Seen]:
        """A page that is loaded again and again: it leaves after some events and comes back with the last id."""
        seen: list[Seen] = []
        while True:
            before = len(seen)
            with closing(self._raw(run_id, seen)) as frames:
                for kind, event in frames:
                    if kind == "end":
                        return seen
                    assert kind == "message", event
                    seen.append(event)
                    if len(seen) == before + RELOAD:
                        break

    def cut(self, run_id: str) -> list[Seen]:
        """A connection that breaks in the middle of an event, after one, two, three … of them."""
        seen: list[Seen] = []
        times = 0
        while True:
            times += 1
            text = self._bytes(run_id, seen, 200 * times + 37 * times)
            *whole, _torn = text.split("\n\n")
            for frame in whole:
                if "event: end" in frame:
                    return seen
                if data := _data(frame):
                    seen.append(data)

    def _bytes(self, run_id: str, seen: list[Seen], count: int) -> str:
        """So many bytes of a stream, or less if it ends or nothing comes; then the connection is torn down."""
        parts = urlsplit(self.stream_url)
        last = seen[-1]["seq"] if seen else 0
        request = (
            f"GET /agent/logs/{run_id}/stream HTTP/1.0\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\nLast-Event-ID: {last}\r\n\r\n"
        )
        received = b""
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=2.0) as connection:
                connection.sendall(request.encode())
                while len(received) < count and (data := connection.recv(count - len(received))):
                    received += data
        except OSError:
            time.sleep(PAUSE_S)
        head, _, body = received.partition(b"\r\n\r\n")
        if head and b" 204 " in head.splitlines()[0]:
            return "event: end\n\n"
        if head and b" 200 " not in head.splitlines()[0]:
            return ""
        return body.decode(errors="replace")

    def _raw(self, run_id: str, seen: list[Seen]) -> Generator[tuple[str, Seen], None, None]:
        """The frames of one connection."""
        last = seen[-1]["seq"] if seen else 0
        headers = {"Last-Event-ID": str(last), "Accept": "text/event-stream"}
        try:
            with self._http() as http, http.stream("GET", f"/agent/logs/{run_id}/stream", headers=headers) as answer:
                if answer.status_code == 204:
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

    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self.stream_url, headers={"Authorization": f"Bearer {self.token}"}, timeout=20.0)


async def _patiently(reading: "asyncio.Future[list[Seen]]", name: str) -> list[Seen]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reading
    except TimeoutError:
        raise AssertionError(f"'{name}' does not come to an end") from None


def _persistently(http: httpx.Client, path: str, params: Mapping[str, int]) -> Seen:
    """The answer, however often the API must be asked."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = http.get(path, params=dict(params))
            if answer.status_code == 200:
                body: Seen = answer.json()
                return body
            assert answer.status_code in {502, 503}, answer.text
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{path} was never answered"
        time.sleep(PAUSE_S)


def _builtin(item: object) -> Seen:
    assert not isinstance(item, Gap), item
    return _whole(msgspec.to_builtins(item))


def _whole(event: Seen) -> Seen:
    """With the fields that have no value, as the API gives them."""
    return {
        "seq": event["seq"],
        "ts": event["ts"],
        "type": event["type"],
        "step": event.get("step"),
        "data": event.get("data", {}),
    }


def _data(frame: str) -> Seen | None:
    """The event of a frame; None if there is none in it."""
    lines = [line.removeprefix("data: ") for line in frame.splitlines() if line.startswith("data: ")]
    event: Seen | None = json.decode(lines[0]) if lines else None
    return event
