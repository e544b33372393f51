"""Values that the shell completes: ids of runs, statuses. A failure completes nothing and prints nothing."""

import threading
from itertools import islice

import typer

from swissbrain.cli.access import connect, profile
from swissbrain.cli.terminal import plain
from swissbrain.errors import ClientError
from swissbrain.models import RunSummary

RUNS = 50
PATIENCE_S = 2.0
"""Longest time that a press of the Tab key may take."""
STATUSES = ("created", "queued", "running", "waiting", "succeeded", "failed", "cancelled")


def run_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the ids of the latest runs that begin so, each with its status and title."""
    found: list[tuple[str, str]] = []
    # While a line is completed, the options before the command are parsed, but the command does not run.
    profile.set(context.find_root().params.get("profile_name"))
    try:
        client = connect(lambda _: None, timeout_s=PATIENCE_S)
    except ClientError:
        return found

    def ask() -> None:
        try:
            with client:
                found.extend(_shown(run) for run in islice(client.runs(), RUNS) if run.run_id.startswith(incomplete))
        except (ClientError, OSError):
            return

    # A daemon: it does not keep the process alive while an API that does not answer is tried again.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return list(found)


def _shown(run: RunSummary) -> tuple[str, str]:
    return plain(run.run_id), " ".join(plain(f"{run.status}  {run.title}").split())


def statuses(incomplete: str) -> list[str]:
    """Return the statuses of a run that begin so."""
    return [status for status in STATUSES if status.startswith(incomplete)]
