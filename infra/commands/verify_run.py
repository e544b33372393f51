"""Check of an installation with one run: queued, picked up, executed in isolation, followed, read back, deleted."""

import secrets
import time

from swissbrain import Client
from swissbrain.cli.checks import CheckFailed, Checklist
from swissbrain.models import Event, Run
from swissbrain.plan import Plan, file_write, shell

POLL_S = 0.1
NOT_ISOLATED = 71
"""Exit code of the program if it runs without isolation."""
PROGRAM = f"""set -eu
grep -q '^NoNewPrivs:[[:space:]]*1' /proc/self/status || exit {NOT_ISOLATED}
grep -q '^Seccomp:[[:space:]]*2' /proc/self/status || exit {NOT_ISOLATED}
for line in 1 2 3; do echo "line $line"; done
tr a-f A-F < in.txt > out.txt
"""


def check_run(checks: Checklist, client: Client, timeout_s: float) -> None:
    """Create a run, watch it to its end, compare its result, and delete it, whatever happened."""
    text = secrets.token_hex(32)
    created: list[str] = []

    def create() -> str:
        plan: Plan = [file_write("in.txt", text), shell(PROGRAM, timeout_s=timeout_s)]
        run = client.create_run(plan, timeout_s=timeout_s, max_attempts=2, metadata={"created_by": "swissbrain verify"})
        created.append(run.run_id)
        return run.run_id

    if not checks.check("run created", create):
        return
    run_id = created[0]
    try:
        if (
            checks.check("run picked up", lambda: _picked_up(client, run_id, timeout_s))
            and checks.check("log followed", lambda: _followed(client, run_id))
            and checks.check("run isolated", lambda: _succeeded(client, run_id))
        ):
            checks.check("file read back", lambda: _read_back(client, run_id, text))
            checks.check("queue", lambda: _queue(client))
    finally:
        checks.check("cleaned up", lambda: _deleted(client, run_id, timeout_s))


def _picked_up(client: Client, run_id: str, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while (run := client.get_run(run_id)).status == "queued":
        if time.monotonic() > deadline:
            raise CheckFailed(f"no worker took the run within {timeout_s:g} s")
        time.sleep(POLL_S)
    waited_ms = (run.started_ms or run.created_ms) - run.created_ms
    return f"by {_worker(client, run)} after {waited_ms} ms in the queue"


def _worker(client: Client, run: Run) -> str:
    attempts = client.attempts(run.run_id)
    return attempts[-1].worker if attempts else "a worker"


def _followed(client: Client, run_id: str) -> str:
    """Read the log live, to its end. The run has a timeout, so the log ends."""
    expected = 1
    lines = 0
    last = ""
    for item in client.events(run_id):
        if not isinstance(item, Event) or item.seq != expected:
            raise CheckFailed(f"event {expected} is missing in the log")
        expected += 1
        lines += item.type == "tool.output"
        last = item.type
    if last != "run.finished":
        raise CheckFailed(f"the log ended with the event {last}")
    return f"{expected - 1} events without a gap, {lines} lines of output"


def _succeeded(client: Client, run_id: str) -> str:
    run = client.get_run(run_id)
    if run.status == "succeeded":
        return "no new privileges, system calls are filtered"
    if run.error and run.error.code == "exit_code" and f"exit code {NOT_ISOLATED}" in run.error.message:
        raise CheckFailed(
            "its program ran without isolation: the worker was started with --unsafe-no-sandbox, or its pods have no "
            "restricted profile"
        )
    raise CheckFailed(f"the run is {run.status}: {run.error.message if run.error else 'no reason given'}")


def _read_back(client: Client, run_id: str, text: str) -> str:
    found = client.read_text(run_id, "out.txt")
    if found != text.upper():
        raise CheckFailed("the file has another content than the program wrote")
    return f"{len(found)} bytes by a signed link of the object store"


def _queue(client: Client) -> str:
    """Check that there is one wake token for each ready run: other runs may be on their way."""
    depths = client.queue()
    for _ in range(20):
        if depths.pending == depths.ready:
            return f"{depths.pending} wake tokens for {depths.ready} ready runs"
        time.sleep(POLL_S)
        depths = client.queue()
    raise CheckFailed(f"the list jobs:pending has {depths.pending} entries, but {depths.ready} runs are ready")


def _deleted(client: Client, run_id: str, timeout_s: float) -> str:
    if client.get_run(run_id).status not in {"succeeded", "failed", "cancelled"}:
        client.cancel(run_id)
        client.wait(run_id, timeout_s=timeout_s)
    client.delete(run_id)
    return "the run is deleted"
