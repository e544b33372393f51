"""The states of a run and the one table of the transitions that are allowed."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Status(StrEnum):
    """Where a run stands. `waiting` holds neither a lease nor a worker's slot."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How a guarded script answered.

    OK: done now. SAME: this very call was done before (a replay); nothing changed.
    LOST: the fence is stale, another worker owns the run. REFUSED: the transition is not allowed from
    the run's status. GONE: there is no such run.
    """

    OK = "OK"
    SAME = "SAME"
    LOST = "LOST"
    REFUSED = "REFUSED"
    GONE = "GONE"


NEXT: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.CREATED: frozenset({Status.QUEUED, Status.CANCELLED}),
        Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
        Status.RUNNING: frozenset({Status.QUEUED, Status.WAITING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
        Status.WAITING: frozenset({Status.QUEUED, Status.CANCELLED}),
        Status.SUCCEEDED: frozenset(),
        Status.FAILED: frozenset({Status.QUEUED}),
        Status.CANCELLED: frozenset({Status.QUEUED}),
    }
)

TERMINAL: frozenset[Status] = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
