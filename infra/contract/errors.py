"""Errors of the domain, to which adapters map the errors of their libraries.

ContractError
├── InvalidInput        bad input: the value, its place, the allowed values
├── RunGone             no such run (or not this user's)
├── ScheduleGone        no such schedule (or not this user's)
├── TransitionRefused   the run's status does not allow this
├── RecordUnreadable    the run's record is damaged, or was written by a newer release
├── LeaseLost           the fence is stale: another worker owns the run
├── StoreUnavailable    Redis did not reply in time, or cannot execute the command at present; may be retried
│   ├── StoreRefuses    Redis replied that it cannot execute the command at present
│   └── StoreFull       Redis has no memory left, so it refused the command
├── StoreRejected       Redis replied with an error
├── QStashUnavailable   QStash did not answer or refused; may be retried
├── CallRejected        a call was not signed by QStash, or not for this URL and body
├── FilesUnavailable    the object store could not be reached or failed; may be retried
├── FileMissing         no such file in the workspace
├── InputChanged        an input file is not the one that was announced
├── LimitExceeded       a documented limit of the workspace or the executor was exceeded
├── HostExhausted       the worker's host lacks disk space, files, processes or memory; may be retried
├── SessionLost         a long-lived program of the run has ended; the message says why
└── ExecutorUnavailable the sandbox cannot run on this host; the message says what to install
"""

TRANSIENT_CODES = {
    "BUSY": "it is executing a slow script",
    "CLUSTERDOWN": "its cluster is down",
    "LOADING": "it is loading its data",
    "MASTERDOWN": "it is a replica without its primary",
    "MISCONF": "it cannot save its data",
    "NOREPLICAS": "it has too few replicas",
    "OOM": "it has no memory left",
    "READONLY": "it is a replica, which accepts no changes",
    "TRYAGAIN": "its cluster is moving keys",
    "UNBLOCKED": "it has become a replica",
}
"""Codes of errors with which Redis refuses temporarily, as during a failover, and what they mean. Adapters map them to
StoreRefuses."""


class ContractError(Exception):
    """Base of all errors of the domain."""


class InvalidInput(ContractError):
    """Bad input. `field` is the path of the rejected value, such as `$.plan[2].args.path`; empty if there is none."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class RunGone(ContractError):
    """There is no such run."""


class ScheduleGone(ContractError):
    """There is no such schedule."""


class RecordUnreadable(ContractError):
    """The record of a run is damaged, or was written by a newer release; the message names the run."""


class TransitionRefused(ContractError):
    """Request that the run's `status` does not allow, or that came while the run is being deleted."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


class LeaseLost(ContractError):
    """Write with a stale fence: another worker may own the run, so all work on it must stop."""


class StoreUnavailable(ContractError):
    """Redis did not reply in time, or cannot execute the command at present. It may have been executed."""


class StoreRefuses(StoreUnavailable):
    """Redis replied that it cannot execute the command at present, so it has not. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the run store refuses commands for now: {reason}; the refused command has changed nothing")


class StoreFull(StoreUnavailable):
    """Redis has no memory left and refused the command before it changed anything."""


class StoreRejected(ContractError):
    """Redis replied with an error, whose text is the message."""


class QStashUnavailable(ContractError):
    """QStash did not answer in time, or refused the call. It may have been carried out."""


class DeliveryFailed(ContractError):
    """A webhook did not accept an event; QStash tries again, perhaps after `retry_after_s`."""

    retry_after_s: int | None = None

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeliveryRefused(DeliveryFailed):
    """A webhook did not accept an event, and no further attempt would succeed."""


class CallRejected(ContractError):
    """A call was not signed by QStash, or not for this URL and body, or too long ago."""


class FilesUnavailable(ContractError):
    """The object store could not be reached, or replied with a server error."""


class FileMissing(ContractError):
    """No such file in the workspace."""


class InputChanged(ContractError):
    """The stored bytes of an input file are not those that were announced: their SHA-256 differs."""


class LimitExceeded(ContractError):
    """A documented limit was exceeded; the message names it, and `field` the value, as in InvalidInput."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class HostExhausted(ContractError):
    """The worker's host lacks, for now, a resource that all of its runs share: disk space, file descriptors, processes
    and threads, or memory. The run is not the cause. The message names the resource; `infra.host_limits` decides."""


class ExecutorUnavailable(ContractError):
    """The sandbox cannot run on this host; the message says what to install."""


class SessionLost(ContractError):
    """A long-lived program of the run has ended, or was killed; the message says why."""
