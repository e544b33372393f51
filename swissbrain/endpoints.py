"""Endpoints of the API: each function builds the request of one endpoint and sends nothing.

Actions that must not take effect twice carry an idempotency key, because the transport may send a request again.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any
from urllib.parse import quote

import msgspec

from swissbrain.agent import AgentOptions, CallOutcome, Limits, UsageReport
from swissbrain.errors import ClientError
from swissbrain.messages import encode_json
from swissbrain.models import (
    FileLink,
    Identity,
    InputFile,
    PlanStep,
    QueueDepths,
    Run,
    RunState,
    StepRecord,
    StreamToken,
)
from swissbrain.pages import AttemptList, BatchResults, FileList, LogPage, RunPage, StepList
from swissbrain.plan import NewRun, Plan
from swissbrain.request import Request

RUNS_PER_PAGE = 100
EVENTS_PER_PAGE = 1000
RUNS_PER_BATCH = 100
BATCH_S = 20.0
"""Seconds for which the API works on a batch at most."""
BATCH_BYTES = 2**20 - 100
"""Size of the entries of a batch; the rest of the 1 MiB that the API accepts is for what is around them."""


def create_run(*, idempotency_key: str | None, plan: Plan | None, agent: AgentOptions, **fields: Any) -> Request[Run]:
    """Return the request that creates a run; `agent` and `fields` are the body; None means the default of the API."""
    if unknown := agent.keys() - AgentOptions.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument '{min(unknown)}'")
    body = without_none({"plan": steps_of(plan), **fields, **agent})
    return Request(Run, "POST", "/agent/runs", json=body, key=key_or_new(idempotency_key))


def batches(entries: Iterable[msgspec.Raw]) -> Iterator[list[msgspec.Raw]]:
    """Yield the entries in order, in batches of a number and a size that the API accepts."""
    batch: list[msgspec.Raw] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == RUNS_PER_BATCH or size + len(bytes(entry)) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(bytes(entry)) + 1
    if batch:
        yield batch


def create_batch(runs: Sequence[msgspec.Raw]) -> Request[BatchResults]:
    """Return the request that creates up to RUNS_PER_BATCH runs."""
    body = msgspec.Raw(b'{"runs":[' + b",".join(map(bytes, runs)) + b"]}")
    return Request(BatchResults, "POST", "/agent/runs/batch", json=body, held_s=BATCH_S)


def batch_entry(run: NewRun | Mapping[str, Any]) -> msgspec.Raw:
    """Return a run of a batch as JSON, with an idempotency key. Raises ClientError for an unknown field."""
    fields = msgspec.structs.asdict(run) if isinstance(run, NewRun) else dict(run)
    if unknown := fields.keys() - {*NewRun.__struct_fields__}:
        raise ClientError(f"unknown field '{min(unknown)}' of a run; allowed are {', '.join(NewRun.__struct_fields__)}")
    fields |= {"plan": steps_of(fields.get("plan")), "idempotency_key": key_or_new(fields.get("idempotency_key"))}
    return msgspec.Raw(encode_json(without_none(fields)))


def fork_run(
    run_id: str,
    from_step: int,
    *,
    plan: Plan | None,
    prompt: str | None,
    start: bool,
    idempotency_key: str | None,
) -> Request[Run]:
    """Return the request that forks a run before its step `from_step`, counted from 0."""
    body = without_none({"from_step": from_step, "start": start, "plan": steps_of(plan), "prompt": prompt})
    return Request(Run, "POST", f"{_run_path(run_id)}/fork", json=body, key=key_or_new(idempotency_key))


def get_run(run_id: str) -> Request[Run]:
    """Return the request for one run."""
    return Request(Run, "GET", _run_path(run_id))


def wait_for_run(run_id: str, wait_s: int) -> Request[Run]:
    """Return the request for one run, answered when it has ended or waits for input, after `wait_s` seconds at most."""
    return Request(Run, "GET", _run_path(run_id), params={"wait": str(wait_s)}, held_s=wait_s)


def list_runs(filters: Mapping[str, str], cursor: str | None) -> Request[RunPage]:
    """Return the request for one page of runs; `cursor` comes from the page before; None for the first page."""
    params = {"limit": str(RUNS_PER_PAGE), **filters}
    if cursor is not None:
        params["cursor"] = cursor
    return Request(RunPage, "GET", "/agent/runs", params=params)


def run_filters(
    *,
    status: str | Sequence[str] | None,
    error: str | None,
    created_after_ms: int | None,
    created_before_ms: int | None,
    metadata: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return the query for the runs to which all filters apply."""
    named = {
        "status": _joined(status),
        "error": error,
        "created_after": created_after_ms,
        "created_before": created_before_ms,
        **{f"metadata.{name}": value for name, value in (metadata or {}).items()},
    }
    return {name: str(value) for name, value in without_none(named).items()}


def list_steps(run_id: str) -> Request[StepList]:
    """Return the request for the steps of a run."""
    return Request(StepList, "GET", f"{_run_path(run_id)}/steps")


def get_step(run_id: str, index: int) -> Request[StepRecord]:
    """Return the request for a completed step; `index` counts from 0."""
    return Request(StepRecord, "GET", f"{_run_path(run_id)}/steps/{index}", redirects=True)


def get_call(run_id: str, index: int) -> Request[CallOutcome]:
    """Return the request for a call of an agent; `index` counts from 0."""
    return Request(CallOutcome, "GET", f"{_run_path(run_id)}/steps/{index}", redirects=True)


def list_attempts(run_id: str) -> Request[AttemptList]:
    """Return the request for the attempts of a run."""
    return Request(AttemptList, "GET", f"{_run_path(run_id)}/attempts")


def start_run(run_id: str) -> Request[RunState]:
    """Return the request that queues a created run."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/start")


def cancel_run(run_id: str) -> Request[RunState]:
    """Return the request that cancels a run."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/cancel")


def retry_run(run_id: str, limits: Limits | Mapping[str, Any] | None) -> Request[RunState]:
    """Return the request that queues a failed or cancelled run again; None leaves its limits."""
    body = None if limits is None else {"limits": limits}
    return Request(RunState, "POST", f"{_run_path(run_id)}/retry", json=body, key=key_or_new(None))


def resume_run(run_id: str, body: Mapping[str, Any]) -> Request[RunState]:
    """Return the request that answers open requests of a waiting run."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/resume", json=body, key=key_or_new(None))


def send_message(run_id: str, text: str) -> Request[RunState]:
    """Return the request that sends a message to a run."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/messages", json={"text": text}, key=key_or_new(None))


def interrupt_run(run_id: str) -> Request[RunState]:
    """Return the request that lets a run wait for people."""
    return Request(RunState, "POST", f"{_run_path(run_id)}/interrupt")


def delete_run(run_id: str) -> Request[None]:
    """Return the request that deletes a run."""
    return Request(NoneType, "DELETE", _run_path(run_id))


def read_log(run_id: str, after: int, filters: Mapping[str, str]) -> Request[LogPage]:
    """Return the request for one page of a log, from seq `after + 1` on."""
    params = {"after": str(after), "limit": str(EVENTS_PER_PAGE), **filters}
    return Request(LogPage, "GET", f"/agent/logs/{quoted(run_id)}", params=params)


def read_log_backwards(run_id: str, count: int, before: int | None, filters: Mapping[str, str]) -> Request[LogPage]:
    """Return the request for the last `count` events of a log, or for those directly before the seq `before`."""
    limit = str(min(count, EVENTS_PER_PAGE))
    part = {"tail": limit} if before is None else {"before": str(before), "limit": limit}
    return Request(LogPage, "GET", f"/agent/logs/{quoted(run_id)}", params={**part, **filters})


def log_filters(
    step: int | Sequence[int] | None, stream: str | Sequence[str] | None, event_type: str | Sequence[str] | None
) -> dict[str, str]:
    """Return the query for the events to which all filters apply."""
    return without_none({"step": _joined(step), "stream": _joined(stream), "type": _joined(event_type)})


def log_stream_path(run_id: str) -> str:
    """Return the path of a run's live log."""
    return f"/agent/logs/{quoted(run_id)}/stream"


def create_stream_token(run_id: str, expires_s: int | None) -> Request[StreamToken]:
    """Return the request for a stream token; with `expires_s` None the API chooses its lifetime."""
    body = without_none({"expires_s": expires_s})
    return Request(StreamToken, "POST", f"{_run_path(run_id)}/stream-token", json=body)


def list_files(run_id: str) -> Request[FileList]:
    """Return the request for the list of a run's files."""
    return Request(FileList, "GET", f"{_run_path(run_id)}/files")


def get_file(run_id: str, path: str) -> Request[None]:
    """Return the request whose response redirects to the content of a file."""
    return Request(NoneType, "GET", _file_path(run_id, path), redirects=True)


def get_file_link(run_id: str, path: str, *, inline: bool) -> Request[FileLink]:
    """Return the request for an address of a file."""
    params = {"disposition": "inline"} if inline else None
    return Request(FileLink, "GET", _file_path(run_id, path), params=params, accept="application/json")


def announce_upload(run_id: str, path: str, size_bytes: int, digests: Mapping[str, str]) -> Request[InputFile]:
    """Return the request that announces a file; its response says where to send the content.

    `digests`: `sha256` and `md5` in hex, because only the API knows which of them its object store checks.
    """
    return Request(InputFile, "PUT", _file_path(run_id, path), json={"size_bytes": size_bytes, **digests})


def copy_file(run_id: str, path: str, from_run: str, source: str) -> Request[InputFile]:
    """Return the request that lets a run begin with a file of another run."""
    return Request(InputFile, "PUT", _file_path(run_id, path), json={"from_run": from_run, "path": source})


def get_usage(days: int) -> Request[UsageReport]:
    """Return the request for the usage of models on the last days."""
    return Request(UsageReport, "GET", "/agent/usage", params={"days": str(days)})


def get_queue() -> Request[QueueDepths]:
    """Return the request for the depths of the queue."""
    return Request(QueueDepths, "GET", "/agent/queue")


def who_am_i() -> Request[Identity]:
    """Return the request for the user and the scopes of the token."""
    return Request(Identity, "GET", "/agent/whoami")


def _run_path(run_id: str) -> str:
    return f"/agent/runs/{quoted(run_id)}"


def _file_path(run_id: str, path: str) -> str:
    return f"{_run_path(run_id)}/files/{quoted(path, safe='/')}"


def quoted(name: str, safe: str = "") -> str:
    """Return the name of a run or file as part of a path. Raises ClientError for an empty name.

    The name must not lead to another endpoint, so `.` and `..` are quoted as well: HTTP libraries resolve them before
    they send a path.
    """
    if not name:
        raise ClientError("the name of a run or file is empty")
    quoted_name = quote(name, safe=safe, errors="surrogatepass")
    return "/".join("%2E" * len(part) if part in {".", ".."} else part for part in quoted_name.split("/"))


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are given."""
    return {name: value for name, value in fields.items() if value is not None}


def steps_of(plan: Plan | None) -> Sequence[PlanStep | Mapping[str, Any]] | None:
    """Return the steps of a plan."""
    return [plan] if isinstance(plan, PlanStep | Mapping) else plan


def _joined(values: int | str | Sequence[int | str] | None) -> str | None:
    """Return one value or several as text, separated by commas. Raises ClientError for none: not all are meant."""
    joined = values if values is None or isinstance(values, int | str) else ",".join(map(str, values))
    if joined == "":
        raise ClientError("a filter is empty; leave it out to select everything")
    return None if joined is None else str(joined)


def key_or_new(given: str | None) -> str:
    """Return the given idempotency key, or a new one."""
    return secrets.token_urlsafe(16) if given is None else given
