"""Endpoints of the API: each function builds the request of one endpoint and sends nothing.

Actions that must not take effect twice carry an idempotency key, because the transport may send a request again.
"""

import secrets
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any
from urllib.parse import quote

from swissbrain.errors import ClientError
from swissbrain.models import (
    AttemptList,
    FileList,
    LogPage,
    PlanStep,
    QueueDepths,
    Run,
    RunPage,
    RunState,
    StreamToken,
)
from swissbrain.request import Request

RUNS_PER_PAGE = 100
EVENTS_PER_PAGE = 1000


def create_run(*, start: bool, idempotency_key: str | None, **fields: Any) -> Request[Run]:
    """Return the request that creates a run; `fields` is the body; None means the default of the API."""
    body = {**_without_none(fields), "start": start}
    return Request(Run, "POST", "/agent/runs", json=body, key=_key(idempotency_key))


def fork_run(
    run_id: str,
    from_step: int,
    *,
    plan: Sequence[PlanStep | Mapping[str, Any]] | None,
    prompt: str | None,
    start: bool,
    idempotency_key: str | None,
) -> Request[Run]:
    """Return the request that forks a run before its step `from_step`, counted from 0."""
    body = _without_none({"from_step": from_step, "start": start, "plan": plan, "prompt": prompt})
    return Request(Run, "POST", f"{_run_path(run_id)}/fork", json=body, key=_key(idempotency_key))


def get_run(run_id: str) -> Request[Run]:
    """Return the request for one run."""
    return Request(Run, "GET", _run_path(run_id))


def list_runs(*, status: str | None, error: str | None, cursor: str | None) -> Request[RunPage]:
    """Return the request for one page of runs; `cursor` comes from the page before; None for the first page."""
    params = {"limit": str(RUNS_PER_PAGE)}
    params |= {name: value for name, value in (("status", status), ("error", error)) if value}
    if cursor is not None:
        params["cursor"] = cursor
    return Request(RunPage, "GET", "/agent/runs", params=params)


def list_attempts(run_id: str) -> Request[AttemptList]:
    """Return the request for the attempts of a run."""
    return Request(AttemptList, "GET", f"{_run_path(run_id)}/attempts")


def start_run(run_id: str) -> Request[RunState]:
    """Return the request that queues a created run."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/start")


def cancel_run(run_id: str) -> Request[RunState]:
    """Return the request that cancels a run."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/cancel")


def retry_run(run_id: str) -> Request[RunState]:
    """Return the request that queues a failed or cancelled run again."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/retry", key=_key(None))


def resume_run(run_id: str, user_input: str) -> Request[RunState]:
    """Return the request that gives a waiting run its input."""
    body = {"user_input": user_input}
    return Request(RunState, "POST", f"{_run_path(run_id)}/resume", json=body, key=_key(None))


def delete_run(run_id: str) -> Request[None]:
    """Return the request that deletes a run."""
    return Request(NoneType, "DELETE", _run_path(run_id))


def read_log(run_id: str, after: int) -> Request[LogPage]:
    """Return the request for one page of a log, from seq `after + 1` on."""
    params = {"after": str(after), "limit": str(EVENTS_PER_PAGE)}
    return Request(LogPage, "GET", f"/agent/logs/{_quoted(run_id)}", params=params)


def log_stream_path(run_id: str) -> str:
    """Return the path of a run's live log."""
    return f"/agent/logs/{_quoted(run_id)}/stream"


def create_stream_token(run_id: str, expires_s: int | None) -> Request[StreamToken]:
    """Return the request for a stream token; with `expires_s` None the API chooses its lifetime."""
    body = _without_none({"expires_s": expires_s})
    return Request(StreamToken, "POST", f"{_run_path(run_id)}/stream-token", json=body)


def list_files(run_id: str) -> Request[FileList]:
    """Return the request for the list of a run's files."""
    return Request(FileList, "GET", f"{_run_path(run_id)}/files")


def get_file(run_id: str, path: str) -> Request[None]:
    """Return the request whose response redirects to the content of a file."""
    return Request(NoneType, "GET", f"{_run_path(run_id)}/files/{_quoted(path, safe='/')}", redirects=True)


def get_queue() -> Request[QueueDepths]:
    """Return the request for the depths of the queue."""
    return Request(QueueDepths, "GET", "/agent/queue")


def _run_path(run_id: str) -> str:
    return f"/agent/runs/{_quoted(run_id)}"


def _quoted(name: str, safe: str = "") -> str:
    """Return the name of a run or file as part of a path. Raises ClientError for an empty name.

    The name must not lead to another endpoint, so `.` and `..` are quoted as well: HTTP libraries resolve them before
    they send a path.
    """
    if not name:
        raise ClientError("the name of a run or file is empty")
    quoted = quote(name, safe=safe, errors="surrogatepass")
    return "/".join("%2E" * len(part) if part in {".", ".."} else part for part in quoted.split("/"))


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _key(given: str | None) -> str:
    return secrets.token_urlsafe(16) if given is None else given
