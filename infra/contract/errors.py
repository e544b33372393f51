"""What can go wrong, named for the domain; adapters map their vendors' errors to these.

ContractError
├── InvalidInput        bad input: what was wrong, where, what is allowed
├── RunGone             no such run (or not this user's)
├── TransitionRefused   the run's status does not allow this
├── LeaseLost           the fence is stale: another worker owns the run
├── StoreUnavailable    Redis could not be reached, did not answer in time, or cannot do it now; may be tried again
├── StoreRejected       Redis answered with an error
├── FilesUnavailable    the object store could not be reached or failed; may be tried again
├── FileMissing         no such file in the workspace
├── LimitExceeded       a stated limit of the workspace or the executor was passed
├── HostExhausted         the worker's host is out of space, files, processes or memory; may be tried again
└── ExecutorUnavailable the sandbox cannot run here; says what to install
"""

PASSING = frozenset(
    [
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    ]
)
"""Codes of errors with which Redis says that it cannot do now what it otherwise does, as during a failover or while its
memory is full: these mean StoreUnavailable."""


class ContractError(Exception):
    """Base of all errors of the domain."""


class InvalidInput(ContractError):
    """Bad input. `field` is the path of the offending value, such as `$.plan[2].args.path`; empty if there is none."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class RunGone(ContractError):
    """There is no such run."""


class TransitionRefused(ContractError):
    """The run's status does not allow what was asked, or it is being deleted; `status` is that status."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


class LeaseLost(ContractError):
    """A write was refused because its fence is stale: stop working on this run at once."""


class StoreUnavailable(ContractError):
    """Redis could not be reached, did not answer in time, or cannot do it now: it may or may not have been done."""


class StoreRejected(ContractError):
    """Redis answered with an error; its text is the message."""


class FilesUnavailable(ContractError):
    """The object store could not be reached or answered with a server error."""


class FileMissing(ContractError):
    """No such file in the workspace."""


class LimitExceeded(ContractError):
    """A stated limit was passed; the message names it."""


class HostExhausted(ContractError):
    """The worker's host lacks, for now, a resource that all of its runs share: disk space, file descriptors, processes
    and threads, or memory. The run is not the cause. The message names the resource; `infra.host_limits` decides."""


class ExecutorUnavailable(ContractError):
    """The sandbox cannot run on this host; the message says what to install."""
