"""Client of the HTTP API.

with Client("https://api.example.ch", token) as client:
    run = client.create_run(prompt="Clean this table and plot it")
    for event in client.events(run.run_id):
        ...
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from swissbrain import downloads, endpoints
from swissbrain.errors import ApiError, ProtocolError
from swissbrain.models import (
    Attempt,
    Event,
    File,
    Gap,
    PlanStep,
    QueueDepths,
    Run,
    RunState,
    RunSummary,
    StreamToken,
)
from swissbrain.stream import LogStream
from swissbrain.transport import Transport

TIMEOUT_S = 30.0
PATIENCE_S = 300.0


class Client:
    """Client of the API at `base_url` with a bearer token. May be shared between threads.

    Every method raises ApiError if the API refuses a request, Unreachable if it does not respond, ProtocolError if
    the response does not come from this API. Requests are retried where that may help; no request takes effect twice.
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
        """Prepare the connections; raises ClientError for an address or a token that is malformed.

        `timeout_s` bounds each request; `patience_s` bounds how long `events` retries while the API is unreachable.
        `notify` receives a line when the connection of a followed log is lost, and when it is restored.
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

        The run starts after `delay_s`, or at `start_at_ms` (ms since the epoch). If no worker has started it within
        `queue_ttl_s`, it fails with the code `expired`.

        With the idempotency key of an earlier run of the same content, return that run. Without a key, a new key is
        made for this call, so that a retried request does not create a second run.
        """
        request = endpoints.create_run(
            prompt=prompt,
            plan=plan,
            start=start,
            priority=priority,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            metadata=metadata,
            delay_s=delay_s,
            start_at_ms=start_at_ms,
            queue_ttl_s=queue_ttl_s,
            idempotency_key=idempotency_key,
        )
        return self._api.ask(request)

    def get_run(self, run_id: str) -> Run:
        """Return one run."""
        return self._api.ask(endpoints.get_run(run_id))

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
        """Create a run that takes over the first `from_step` steps of this run, with their results and files.

        Those steps are not executed again. `plan` replaces the steps after them, `prompt` replaces the prompt.
        """
        request = endpoints.fork_run(
            run_id, from_step, plan=plan, prompt=prompt, start=start, idempotency_key=idempotency_key
        )
        return self._api.ask(request)

    def attempts(self, run_id: str) -> list[Attempt]:
        """Return the attempts of a run, oldest first."""
        return self._api.ask(endpoints.list_attempts(run_id)).attempts

    def runs(
        self,
        *,
        status: str | None = None,
        error: str | None = None,
        on_unreadable: Callable[[str], None] = lambda _run_id: None,
    ) -> Iterator[RunSummary]:
        """Yield all runs, newest first, fetched page by page. `error`: only runs that failed with this code.

        `on_unreadable` is called with the id of each run whose record is damaged, or was written by a newer release.
        """
        cursor: str | None = None
        while True:
            page = self._api.ask(endpoints.list_runs(status=status, error=error, cursor=cursor))
            for run_id in page.unreadable:
                on_unreadable(run_id)
            yield from page.runs
            cursor = page.next_cursor
            if cursor is None:
                return

    def start(self, run_id: str) -> RunState:
        """Queue a created run."""
        return self._api.ask(endpoints.start_run(run_id))

    def cancel(self, run_id: str) -> RunState:
        """Cancel a run. A running run stays `running` until its worker has stopped it."""
        return self._api.ask(endpoints.cancel_run(run_id))

    def retry(self, run_id: str) -> RunState:
        """Queue a failed or cancelled run again; completed steps are not repeated."""
        return self._api.ask(endpoints.retry_run(run_id))

    def resume(self, run_id: str, user_input: str) -> RunState:
        """Give a waiting run its input."""
        return self._api.ask(endpoints.resume_run(run_id, user_input))

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended or was never started: its files, its record, its log."""
        try:
            response = self._api.send(endpoints.delete_run(run_id))
        except ApiError as exc:
            # After a retry, 404 means success: an earlier try, whose response was lost, has deleted the run.
            if exc.status == HTTPStatus.NOT_FOUND and exc.tries > 1:
                return
            raise
        if response.status_code != HTTPStatus.NO_CONTENT:
            raise ProtocolError(f"{self._api.base_url} does not answer as this API does")

    def logged(self, run_id: str, *, after: int = 0) -> Iterator[Event | Gap]:
        """Yield the events logged so far, from seq `after + 1` on."""
        while True:
            page = self._api.ask(endpoints.read_log(run_id, after))
            if page.gap:
                yield page.gap
            yield from page.events
            # An empty page of a run that has not ended: the log has no more events yet.
            if page.done or not (page.events or page.gap):
                return
            after = page.next_after

    def events(self, run_id: str, *, after: int = 0) -> Iterator[Event | Gap]:
        """Yield the events from seq `after + 1` on, live until the run has ended: each event once and in order.

        Lost connections are re-established. A Gap replaces events that the API has deleted.
        """
        path = endpoints.log_stream_path(run_id)
        return iter(LogStream(self._api, path, after, patience_s=self._patience_s, notify=self._notify))

    def stream_token(self, run_id: str, expires_s: int | None = None) -> StreamToken:
        """Return a token with which a browser can read the log of this run only, for `expires_s` seconds (300)."""
        return self._api.ask(endpoints.create_stream_token(run_id, expires_s))

    def files(self, run_id: str) -> list[File]:
        """Return the files in the workspace of a run, sorted by path."""
        return self._api.ask(endpoints.list_files(run_id)).files

    def download(self, run_id: str, path: str, to: BinaryIO) -> None:
        """Write the content of a workspace file to `to`. The token is never sent to the object store."""
        downloads.download(self._api, run_id, path, to)

    def save(self, run_id: str, path: str, to: Path) -> None:
        """Write the content of a workspace file to the file `to`, which is replaced as a whole. Raises OSError too."""
        downloads.save(self._api, run_id, path, to)

    def queue(self) -> QueueDepths:
        """Return the number of runs in each part of the queue, of all users."""
        return self._api.ask(endpoints.get_queue())
