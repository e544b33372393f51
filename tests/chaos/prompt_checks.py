"""Checks of a run with a prompt: each reply and each call counts once, and usage, files and result are right."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from swissbrain import Client
from swissbrain.models import Event, Run
from tests.chaos.prompts import JOBS, Job

UNCOUNTED = {"model_unavailable", "model_busy"}
"""Reasons of a requeue after an exchange without a reply: its tokens are in the usage, and in no `model.message`."""


def check_prompt_run(kind: str, client: Client, run: Run, events: Sequence[Event]) -> Iterator[str]:
    """Yield the violations of one run of this kind."""
    job = JOBS[kind]
    yield from _replies(job, run, events)
    yield from _calls(job, run, events)
    yield from _requests(job, run, events)
    yield from _usage(run, events)
    if run.status == "succeeded":
        yield from _result(job, client, run)


def _replies(job: Job, run: Run, events: Sequence[Event]) -> Iterator[str]:
    messages = _data(events, "model.message")
    numbers = [message["n"] for message in messages]
    if numbers != list(range(len(numbers))):
        yield f"model.message has the numbers {numbers}"
    usable = sum("problem" not in message for message in messages)
    if usable > len(job.replies) or (run.status == "succeeded" and usable != len(job.replies)):
        yield f"{usable} replies were used instead of {len(job.replies)}"


def _calls(job: Job, run: Run, events: Sequence[Event]) -> Iterator[str]:
    finished = Counter(data["call"] for data in _data(events, "tool.finished"))
    started = {data["call"] for data in _data(events, "tool.started")}
    if repeated := [call for call, count in finished.items() if count > 1]:
        yield f"tool.finished was logged twice for {repeated}"
    if failed := [data for data in _data(events, "tool.finished") if data["status"] != "succeeded"]:
        yield f"calls failed: {failed}"
    if run.status != "succeeded":
        return
    if len(finished) != job.calls or started != finished.keys():
        yield f"{len(finished)} calls finished instead of {job.calls}; started were {sorted(started)}"


def _requests(job: Job, run: Run, events: Sequence[Event]) -> Iterator[str]:
    asked = [request["id"] for data in _data(events, "run.waiting") for request in data["requests"]]
    answered = [data["request"] for data in _data(events, "run.input")]
    if answered != asked or len(asked) > len(set(asked)):
        yield f"requests {asked} were answered by {answered}"
    if run.status == "succeeded" and len(asked) != job.requests:
        yield f"people were asked {len(asked)} times instead of {job.requests}"


def _usage(run: Run, events: Sequence[Event]) -> Iterator[str]:
    messages = _data(events, "model.message")
    logged: dict[str, Any] = {
        name: sum(message.get(name, 0) for message in messages)
        for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    }
    logged["exchanges"] = len(messages)
    cost = sum(message.get("cost_micros", 0) for message in messages)
    if run.usage is None:
        if messages:
            yield "the record has no usage"
        return
    stored = {name: getattr(run.usage, name) for name in logged}
    logged["cost"], stored["cost"] = Decimal(cost) / 1_000_000, Decimal(run.usage.cost.get("CHF", "0"))
    uncounted = run.status == "cancelled" or any(d["reason"] in UNCOUNTED for d in _data(events, "run.requeued"))
    right = all(stored[name] >= logged[name] for name in logged) if uncounted else stored == logged
    if not right or stored["exchanges"] != logged["exchanges"]:
        yield f"the record has the usage {stored}, its log {logged}"


def _result(job: Job, client: Client, run: Run) -> Iterator[str]:
    found: dict[str, bytes] = {}
    for file in client.files(run.run_id):
        content = io.BytesIO()
        client.download(run.run_id, file.path, content)
        found[file.path] = content.getvalue()
    if found != job.files:
        yield f"the workspace has {found} instead of {job.files}"
    named = [file["path"] for file in (run.result or {}).get("files", ())]
    if named != job.result:
        yield f"the result names the files {named}"


def _data(events: Sequence[Event], kind: str) -> list[Mapping[str, Any]]:
    return [event.data for event in events if event.type == kind]
