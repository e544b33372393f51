"""Statuses of a run, the table of allowed transitions, and the outcomes of a guarded script."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Status(StrEnum):
    """Status of a run. A `waiting` run holds neither a lease nor a worker slot."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """Outcome of a guarded script.

    OK: executed. SAME: the same call was executed before (a replay); nothing changed. LOST: the fence is stale, because
    another worker has claimed the run. REFUSED: the run's status does not allow the transition. GONE: there is no such
    run, or it is being deleted.
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
        Status.WAITING: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED}),
        Status.SUCCEEDED: frozenset(),
        Status.FAILED: frozenset({Status.QUEUED}),
        Status.CANCELLED: frozenset({Status.QUEUED}),
    }
)

TERMINAL: frozenset[Status] = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
