"""Every way to read a log, and what readers do. Each collects a run's events, as they came, until the log has ended."""

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

from swissbrain.client import Client
from swissbrain.models import Gap
from tests.browser.browser import Browser, Collected
from tests.chaos.load import persistent
from tests.chaos.processes import ROOT
from tests.chaos.proxy import HOST, Mode, ProxyHost
from tests.conformance.oracle import Seen

T = TypeVar("T")

PATIENCE_S = 120.0
PAUSE_S = 0.1
RELOAD = 10
"""Who reloads leaves after so many events, and comes back."""
LATE = 70
"""Who is late comes after so many events."""

SERVED = ("stream", "long poll", "streaming function", "polling function")
"""What answers."""
WAYS = (*SERVED, "command", "pages", "EventSource", "EventSource, long poll")
HABITS = ("steady", "late", "reload", "torn")
"""`late` comes in the middle of the log, when its beginning is archived. `reload` leaves at every tenth event and comes
back with the last id. Every connection of `torn` is closed in the middle of an event, after few of them."""
EVERYBODY = [*((way, "steady") for way in WAYS), *(("stream", habit) for habit in HABITS[1:])]

Read = Callable[[str, str], Awaitable[list[Seen]]]


@dataclass(frozen=True)
class Way:
    """One way: where it reads, and how it does and comes back; both take the address and the run."""

    url: str
    read: Read
    reload: Read


class Ways:
    """All of them. `urls`: the address of each that is `SERVED`. Without a `browser`, without that one."""

    def __init__(self, urls: Mapping[str, str], token: str, browser: Browser | None, proxies: ProxyHost) -> None:
        self.token = token
        self._browser = browser
        self._proxies = proxies
        self._threads = ThreadPoolExecutor(20, "reader")
        self._ways = {name: Way(urls[name], self._in_thread(self.client), self._in_thread(self.raw)) for name in SERVED}
        url = urls["stream"]
        self._ways["command"] = Way(url, self._in_thread(self.command), self._in_thread(self.commands))
        self._ways["pages"] = Way(url, self._in_thread(self.pages), self._in_thread(self.pages))
        if browser:
            self._ways["EventSource"] = Way(url, self.in_browser, self.reloaded)
            self._ways["EventSource, long poll"] = Way(urls["long poll"], self.in_browser, self.reloaded)

    def begin(
        self, run_id: str, wanted: Iterable[tuple[str, str]] = EVERYBODY
    ) -> dict[tuple[str, str], "asyncio.Task[list[Seen]]"]:
        """Read in all of these ways and habits at once."""
        return {
            (name, habit): asyncio.create_task(_patiently(self._read(self._ways[name], habit, run_id), name, habit))
            for name, habit in wanted
            if name in self._ways
        }

    async def _read(self, way: Way, habit: str, run_id: str) -> list[Seen]:
        if habit == "reload":
            return await way.reload(way.url, run_id)
        if habit == "torn":
            proxy = await asyncio.to_thread(self._proxies.proxy, urlsplit(way.url).port or 0)
            await asyncio.to_thread(proxy.behave, Mode.TEAR)
            seen = await way.read(f"http://{HOST}:{proxy.port}", run_id)
            assert proxy.torn > 1 or len(seen) < LATE
            return seen
        if habit == "late":
            await self._in_thread(self._wait)(way.url, run_id)
        return await way.read(way.url, run_id)

    def _in_thread(self, collect: Callable[[str, str], T]) -> Callable[[str, str], Awaitable[T]]:
        loop = asyncio.get_running_loop()
        return lambda url, run_id: loop.run_in_executor(self._threads, collect, url, run_id)

    async def in_browser(self, url: str, run_id: str) -> list[Seen]:
        """A page of another origin, with a stream token."""
        assert self._browser
        return _of_page(await self._browser.collect(url, run_id, key=self.token))

    async def reloaded(self, url: str, run_id: str) -> list[Seen]:
        """The same page, loaded again and again."""
        assert self._browser
        async with self._browser.watch(url, run_id, key=self.token) as tab:
            while not (collected := await tab.collected()).finished:
                await tab.has_or_is_over(len(collected.messages) + RELOAD)
                if not (await tab.collected()).finished:
                    await tab.reload()
            return _of_page(collected)

    def client(self, url: str, run_id: str) -> list[Seen]:
        """The Python client."""
        with Client(url, self.token) as client:
            return list(map(_builtin, client.events(run_id)))

    def raw(self, url: str, run_id: str) -> list[Seen]:
        """Bare HTTP: leaves after some events and comes back with the last id, as an EventSource does."""
        seen: list[Seen] = []
        while True:
            before = len(seen)
            with closing(self._frames(url, run_id, seen)) as frames:
                for kind, event in frames:
                    if kind == "end":
                        return seen
                    assert kind == "message", event
                    seen.append(event)
                    if len(seen) == before + RELOAD:
                        break

    def command(self, url: str, run_id: str) -> list[Seen]:
        """`swissbrain logs --follow --json`."""
        with self._logs(url, run_id, 0) as process:
            text, errors = process.communicate()
            assert process.returncode in {0, 1, 3}, errors
            return [_whole(json.decode(line)) for line in text.splitlines()]

    def commands(self, url: str, run_id: str) -> list[Seen]:
        """The same, killed after some events and begun again after the last one."""
        seen: list[Seen] = []
        while True:
            before = len(seen)
            with self._logs(url, run_id, before) as process:
                assert process.stdout
                for line in process.stdout:
                    seen.append(_whole(json.decode(line)))
                    if len(seen) == before + RELOAD:
                        process.send_signal(signal.SIGKILL)
                        break
                else:
                    return seen

    def pages(self, url: str, run_id: str) -> list[Seen]:
        """JSON, a page at a time, until it is done."""
        seen: list[Seen] = []
        with self._http(url) as http:
            while True:
                after = seen[-1]["seq"] if seen else 0
                body = _persistently(http, f"/agent/logs/{run_id}", {"after": after, "limit": 7})
                assert "gap" not in body
                seen += body["events"]
                if body["done"]:
                    return seen
                if not body["events"]:
                    time.sleep(PAUSE_S)

    def _wait(self, url: str, run_id: str) -> None:
        with Client(url, self.token) as client:
            while not (run := persistent(lambda: client.get_run(run_id))).ended and run.last_seq < LATE:
                time.sleep(PAUSE_S)

    def _logs(self, url: str, run_id: str, after: int) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "SWISSBRAIN_API_URL": url, "SWISSBRAIN_TOKEN": self.token}
        command = [sys.executable, "-m", "swissbrain", "logs", "--follow", "--json", "--after", str(after), run_id]
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _frames(self, url: str, run_id: str, seen: list[Seen]) -> Generator[tuple[str, Seen], None, None]:
        """The frames of one connection."""
        last = seen[-1]["seq"] if seen else 0
        headers = {"Last-Event-ID": str(last), "Accept": "text/event-stream"}
        try:
            with self._http(url) as http, http.stream("GET", f"/agent/logs/{run_id}/stream", headers=headers) as answer:
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

    def _http(self, url: str) -> httpx.Client:
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=20.0)


async def _patiently(reading: Awaitable[list[Seen]], name: str, habit: str) -> list[Seen]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reading
    except TimeoutError:
        raise AssertionError(f"'{name}, {habit}' does not come to an end") from None


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


def _of_page(collected: Collected) -> list[Seen]:
    assert not collected.gaps
    assert not collected.failures
    assert collected.ids == [event["seq"] for event in collected.events]
    return collected.events


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
