# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Waiting for a run, by requests that the API holds back until the run has ended."""

import time

from swissbrain import endpoints
from swissbrain._sync.transport import Transport
from swissbrain.callbacks import Notify, ignore
from swissbrain.concurrency import sleep
from swissbrain.errors import Unreachable, WaitTimeout
from swissbrain.models import Run

HELD_S = 20
MIN_INTERVAL_S = 0.5
"""Time between two requests at least, for an API that does not hold them back."""


def wait(api: Transport, run_id: str, timeout_s: float | None, patience_s: float, notify: Notify = ignore) -> Run:
    """Return the run when it has ended or waits for input. Raises WaitTimeout, Unreachable, ApiError."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    away_since: float | None = None
    while True:
        asked = time.monotonic()
        left_s = HELD_S if deadline is None else int(min(HELD_S, deadline - asked))
        # The API accepts whole seconds only.
        request = endpoints.wait_for_run(run_id, left_s) if left_s >= 1 else endpoints.get_run(run_id)
        try:
            run = api.ask(request)
        except Unreachable as exc:
            is_first, away_since = away_since is None, away_since or asked
            now = time.monotonic()
            if now - away_since >= patience_s or (deadline is not None and now >= deadline):
                raise
            if is_first:
                notify(f"{exc}; trying again")
        else:
            if away_since is not None:
                notify("connected again")
            away_since = None
            if run.ended or run.status == "waiting":
                return run
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(run, timeout_s or 0.0)
        next_s = asked + MIN_INTERVAL_S
        if deadline is not None:
            next_s = min(next_s, deadline)
        sleep(max(0.0, next_s - time.monotonic()))
