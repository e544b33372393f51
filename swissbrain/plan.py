"""Plans: a function for each tool, which returns the step that calls it.

plan = [file_write("names.txt", "Ada\\nGrace\\n"), shell("sort names.txt"), code.python(Path("report.py"))]
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from swissbrain.agent import ApprovalRule, Limits
from swissbrain.models import PlanStep

Plan = PlanStep | Mapping[str, Any] | Sequence[PlanStep | Mapping[str, Any]]
"""Plan as the client accepts it: one step or several. A mapping has the fields of PlanStep."""


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """Run to be created by `create_many`; the fields are the arguments of `create_run`."""

    plan: Plan | None = None
    prompt: str | None = None
    start: bool = True
    priority: int | None = None
    max_attempts: int | None = None
    timeout_s: float | None = None
    metadata: Mapping[str, str] | None = None
    delay_s: float | None = None
    start_at_ms: int | None = None
    queue_ttl_s: float | None = None
    webhook_url: str | None = None
    webhook_events: Sequence[str] | None = None
    model: str | None = None
    instructions: str | None = None
    tools: Sequence[str] | None = None
    approvals: Sequence[ApprovalRule | Mapping[str, Any]] | None = None
    limits: Limits | Mapping[str, float] | None = None
    output_schema: Mapping[str, Any] | None = None
    strict_plan: bool | None = None
    stream: bool | None = None
    continue_of: str | None = None
    idempotency_key: str | None = None


def shell(
    command: str,
    *,
    timeout_s: float | None = None,
    network: Sequence[str] | None = None,
    name: str | None = None,
) -> PlanStep:
    """Return the step that runs a command line with `sh`; the program is killed after `timeout_s` seconds.

    `network`: hosts that the program may reach, as `host:port` or `*.example.org:443`, within what the operator allows.
    """
    return step("shell", name, command=command, timeout_s=timeout_s, network=None if not network else [*network])


def file_write(path: str, content: str | bytes, *, name: str | None = None) -> PlanStep:
    """Return the step that writes a file of up to 1,000,000 characters; upload larger ones."""
    if isinstance(content, bytes):
        text = base64.b64encode(content).decode()
        return step("file_write", name, path=path, content=text, encoding="base64")
    return step("file_write", name, path=path, content=content)


def file_read(
    path: str, *, max_bytes: int | None = None, offset: int | None = None, name: str | None = None
) -> PlanStep:
    """Return the step that reads a text file; its content is the result of the step.

    At most `max_bytes` are read (by default 65,536), after the first `offset` bytes.
    """
    return step("file_read", name, path=path, max_bytes=max_bytes, offset=offset)


def file_list(path: str | None = None, *, name: str | None = None) -> PlanStep:
    """Return the step that lists the files of a folder, or of the whole workspace."""
    return step("file_list", name, path=path)


def file_delete(path: str, *, name: str | None = None) -> PlanStep:
    """Return the step that deletes a file."""
    return step("file_delete", name, path=path)


def http_fetch(
    url: str,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    save_as: str | None = None,
    timeout_s: float | None = None,
    name: str | None = None,
) -> PlanStep:
    """Return the step that fetches a URL of a host that the worker's configuration allows.

    `method` is GET (the default), HEAD or POST, which alone may have a `body`. The body of the answer becomes the file
    `save_as`, or one in the folder `fetched/`.
    """
    return step(
        "http_fetch",
        name,
        url=url,
        method=method,
        headers=None if headers is None else dict(headers),
        body=body,
        save_as=save_as,
        timeout_s=timeout_s,
    )


def browser(
    action: str,
    *,
    url: str | None = None,
    selector: str | None = None,
    text: str | None = None,
    enter: bool | None = None,
    values: Sequence[str] | None = None,
    full_page: bool | None = None,
    script: str | None = None,
    save_as: str | None = None,
    network: Sequence[str] | None = None,
    timeout_s: float | None = None,
    name: str | None = None,
) -> PlanStep:
    """Return the step that uses a web page: `open`, `click`, `type`, `select`, `wait`, `extract`, `screenshot`,
    `download`, `pdf` or `evaluate`.

    The page stays open for the next such step of the run. Each action takes some of the arguments; docs/browser-tool.md
    has the table.
    """
    return step(
        "browser",
        name,
        action=action,
        url=url,
        selector=selector,
        text=text,
        enter=enter,
        values=None if values is None else list(values),
        full_page=full_page,
        script=script,
        save_as=save_as,
        network=None if network is None else list(network),
        timeout_s=timeout_s,
    )


def message(text: str, *, name: str | None = None) -> PlanStep:
    """Return the step that logs a message for the people who watch the run."""
    return step("message", name, text=text)


def step(tool: str, name: str | None = None, **args: Any) -> PlanStep:
    """Return the step that calls any tool; arguments that are None are left to the default of the tool."""
    return PlanStep(tool=tool, name=name, args={key: value for key, value in args.items() if value is not None})
