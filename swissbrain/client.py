"""The client of the HTTP API.

with Client("https://api.example.ch", token) as client:
    run = client.create_run(prompt="Clean this table and plot it")
    for event in client.events(run.run_id):
        ...
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable
from swissbrain.models import (
    Attempt,
    AttemptList,
    Event,
    File,
    FileList,
    Gap,
    LogPage,
    PlanStep,
    QueueDepths,
    Run,
    RunPage,
    RunState,
    RunSummary,
    StreamToken,
)
from swissbrain.stream import LogStream
from swissbrain.transport import Transport

TIMEOUT_S = 30.0
PATIENCE_S = 300.0
_PAGE = 100
_LOG_PAGE = 1000


class Client:
    """Talks to the API at `base_url` with a bearer token.

    Every method raises ApiError for what the API refuses, Unreachable when it does not answer, ProtocolError when
    something else does. Requests are tried again where that may help; none has its effect twice. May be shared
    between threads.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        notify: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`timeout_s` bounds each request, `patience_s` how long a log is followed while the API is away.

        `notify` takes a line when a followed log's connection is lost, and when it is there again.
        """
        self._api = Transport(base_url, token, timeout_s)
        self._patience_s = patience_s
        self._notify = notify

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def create_run(
        self,
        *,
        prompt: str | None = None,
        plan: Sequence[PlanStep | Mapping[str, Any]] | None = None,
        start: bool = True,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        delay_s: float | None = None,
        start_at_ms: int | None = None,
        queue_ttl_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Create a run from a prompt, a plan, or both, and queue it unless `start` is False.

        It begins after `delay_s`, or at `start_at_ms` (ms since the epoch); if nobody could within `queue_ttl_s`, it
        fails with the code `expired`.

        With the key of an earlier run of the same content, that run. Without a key, one is made for this call, so that
        its own repetitions do not create a second run.
        """
        wanted = {
            "prompt": prompt,
            "plan": plan,
            "priority": priority,
            "max_attempts": max_attempts,
            "timeout_s": timeout_s,
            "metadata": metadata,
            "delay_s": delay_s,
            "start_at_ms": start_at_ms,
            "queue_ttl_s": queue_ttl_s,
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        key = _new_key() if idempotency_key is None else idempotency_key
        return self._api.ask(Run, "POST", "/agent/runs", json={**body, "start": start}, key=key)

    def get_run(self, run_id: str) -> Run:
        """One run."""
        return self._api.ask(Run, "GET", _path(run_id))

    def fork(
        self,
        run_id: str,
        from_step: int,
        *,
        plan: Sequence[PlanStep | Mapping[str, Any]] | None = None,
        prompt: str | None = None,
        start: bool = True,
        idempotency_key: str | None = None,
    ) -> Run:
        """Create a run that begins with the first `from_step` steps of this one, their results and files.

        They are not executed again. `plan` replaces the steps after them, `prompt` the prompt.
        """
        wanted = {"from_step": from_step, "start": start, "plan": plan, "prompt": prompt}
        body = {name: value for name, value in wanted.items() if value is not None}
        key = _new_key() if idempotency_key is None else idempotency_key
        return self._api.ask(Run, "POST", f"{_path(run_id)}/fork", json=body, key=key)

    def attempts(self, run_id: str) -> list[Attempt]:
        """Who worked on a run, oldest first."""
        return self._api.ask(AttemptList, "GET", f"{_path(run_id)}/attempts").attempts

    def runs(self, *, status: str | None = None, error: str | None = None) -> Iterator[RunSummary]:
        """All runs, newest first, fetched page by page. `error`: only those that failed with this code."""
        params = {"limit": str(_PAGE)}
        params |= {name: value for name, value in {"status": status, "error": error}.items() if value}
        while True:
            page = self._api.ask(RunPage, "GET", "/agent/runs", params=params)
            yield from page.runs
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def start(self, run_id: str) -> RunState:
        """Queue a created run."""
        return self._api.ask(RunState, "POST", f"{_path(run_id)}/start")

    def cancel(self, run_id: str) -> RunState:
        """Cancel a run. A running one stays `running` until its worker has stopped it."""
        return self._api.ask(RunState, "POST", f"{_path(run_id)}/cancel")

    def retry(self, run_id: str) -> RunState:
        """Queue a failed or cancelled run again; completed steps are not repeated."""
        return self._api.ask(RunState, "POST", f"{_path(run_id)}/retry", key=_new_key())

    def resume(self, run_id: str, user_input: str) -> RunState:
        """Give a waiting run its input."""
        body = {"user_input": user_input}
        return self._api.ask(RunState, "POST", f"{_path(run_id)}/resume", json=body, key=_new_key())

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended or was never started: its files, its record, its log."""
        try:
            response = self._api.send("DELETE", _path(run_id))
        except ApiError as exc:
            if exc.status == HTTPStatus.NOT_FOUND and exc.tries > 1:
                return  # by a try whose answer was lost
            raise
        if response.status_code != HTTPStatus.NO_CONTENT:
            raise ProtocolError(f"{self._api.base_url} does not answer as this API does")

    def logged(self, run_id: str, *, after: int = 0) -> Iterator[Event | Gap]:
        """The events that there are by now, beginning after seq `after`."""
        while True:
            params = {"after": str(after), "limit": str(_LOG_PAGE)}
            page = self._api.ask(LogPage, "GET", f"/agent/logs/{_quoted(run_id)}", params=params)
            if page.gap:
                yield page.gap
            yield from page.events
            if page.done or not (page.events or page.gap):
                return
            after = page.next_after

    def events(self, run_id: str, *, after: int = 0) -> Iterator[Event | Gap]:
        """The log, beginning after seq `after`, live until the run has ended: each event once and in order.

        Lost connections are made anew. A Gap stands for events that the API no longer has.
        """
        path = f"/agent/logs/{_quoted(run_id)}/stream"
        return iter(LogStream(self._api, path, after, patience_s=self._patience_s, notify=self._notify))

    def stream_token(self, run_id: str, expires_s: int | None = None) -> StreamToken:
        """A token with which a browser can read the log of this run, and nothing else, for 300 s or `expires_s`."""
        body = {} if expires_s is None else {"expires_s": expires_s}
        return self._api.ask(StreamToken, "POST", f"{_path(run_id)}/stream-token", json=body)

    def files(self, run_id: str) -> list[File]:
        """The files of a run's workspace, sorted by path."""
        return self._api.ask(FileList, "GET", f"{_path(run_id)}/files").files

    def download(self, run_id: str, path: str, to: BinaryIO) -> None:
        """Write a file of a run's workspace to `to`. The object store never sees the token."""
        response = self._api.send("GET", f"{_path(run_id)}/files/{_quoted(path, safe='/')}")
        if response.next_request is None:
            raise ProtocolError(f"{self._api.base_url} does not say where '{path}' is")
        store = response.next_request.url
        try:
            with httpx.stream("GET", store, timeout=self._api.http.timeout) as content:
                if content.is_error:
                    raise ApiError(content.status_code, f"the object store refused '{path}'")
                if content.status_code != HTTPStatus.OK:
                    raise ProtocolError(f"the object store does not give '{path}'")
                for piece in content.iter_bytes():
                    to.write(piece)
        except httpx.RequestError as exc:
            reason = str(exc) or type(exc).__name__
            raise Unreachable(f"cannot fetch '{path}' from {store.host}: {reason}") from exc

    def save(self, run_id: str, path: str, to: Path) -> None:
        """Write a file of a run's workspace to the file `to`, which is replaced as a whole. Raises OSError too."""
        if to.exists() and not to.is_file():
            with to.open("wb") as device:
                self.download(run_id, path, device)
            return
        beside = to.with_name(f".swissbrain-{secrets.token_hex(8)}")
        try:
            content = beside.open("xb")
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, str(to)) from exc
        try:
            with content:
                self.download(run_id, path, content)
            beside.replace(to)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def queue(self) -> QueueDepths:
        """How many runs stand where, of all users."""
        return self._api.ask(QueueDepths, "GET", "/agent/queue")


def _path(run_id: str) -> str:
    return f"/agent/runs/{_quoted(run_id)}"


def _quoted(name: str, safe: str = "") -> str:
    """The name of a run or file as a part of an address, in which it must not change what is asked for."""
    if not name:
        raise ClientError("the name of a run or file is empty")
    quoted = quote(name, safe=safe, errors="surrogatepass")
    return "/".join("%2E" * len(part) if part in {".", ".."} else part for part in quoted.split("/"))


def _new_key() -> str:
    return secrets.token_urlsafe(16)
