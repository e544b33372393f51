"""States of runs after an action, the errors of actions that are refused, and the tokens of repeatable requests."""

import hashlib
import uuid

from edge_api.http.response_models import RunState
from infra.contract.errors import RunGone, TransitionRefused
from infra.contract.states import Outcome, Status
from infra.logging import log

_ID_HEX = 32


def run_state(
    action: str, run_id: str, reply: tuple[Outcome, Status | None], *, allowed: str, cancelling: bool = False
) -> RunState:
    """Return the state of a run after an action, and log the action. Raises RunGone and TransitionRefused."""
    outcome, status = reply
    if outcome is Outcome.GONE or status is None:
        raise gone(run_id)
    if outcome is Outcome.REFUSED:
        raise refused(action, status, allowed)
    log(f"run.{action}", run_id=run_id, outcome=outcome, status=status)
    return RunState(run_id=run_id, status=status, cancel_requested=cancelling)


def request_token(user: str, key: str | None) -> str:
    """Return the token of a request: derived from the user and the key, or random without a key."""
    if key is None:
        return uuid.uuid4().hex
    return hashlib.sha256(f"{user}\0{key}".encode()).hexdigest()[:_ID_HEX]


def gone(run_id: str) -> RunGone:
    """Return the error for a run that does not exist, or belongs to another user."""
    return RunGone(f"there is no run '{run_id[:64]}'")


def refused(action: str, status: Status | None, allowed: str) -> TransitionRefused:
    """Return the error for an action that the status does not allow."""
    name = status.value if status else "missing"
    return TransitionRefused(f"cannot {action} a run that is {name}; allowed is {allowed}", name)
