"""Queue between the API and the workers: claims, leases, fenced writes, depths.

How is a lost claim reply undone? A worker process numbers its claims (ClaimSeq), and each granted run keeps the number
of its claim. After a reply was lost, the next claim carries the number of the last claim whose reply arrived
(`last_acked`). The script then requeues the runs that this process was granted in between, before it grants anything:
no worker has begun them, so no attempt is counted. If that happens twice in a row to a run that was granted alone, the
attempt does count: its record may be too large for a reply, and it must not be granted for ever. Until the worker
calls again, the lease bounds the delay.

How are the runs of a crashed worker recovered? By the expiry of their leases, in general. Faster if the worker's host
can prove that the process has ended: a worker process writes its name into a locked file before its first claim
(`infra.scratch_root`). The process that gets the lock next passes the name to its claims (`dead`) until one is
answered; such a claim requeues the runs that are leased to that name, with the outcome `worker_restarted`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from infra.contract.files import FileEntry, FolderEntry, Input
from infra.contract.log import NewEvent, Segment
from infra.contract.requests import UserMessage
from infra.contract.runs import RunRecord
from infra.contract.states import Outcome
from infra.contract.usage import RunUsage

ALIVE_MS = 300_000
"""Time for which a claim can note that a worker process is alive. Longer than the longest wait between two such claims
of a worker, also of one whose slots are all taken."""
MAX_AHEAD = 1000
"""Largest number of runs before a run that is told."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Run granted to a worker: its record, its journal (key → JSON), its files and folders by path, its archived log
    segments.

    `inputs` are its input files by path, as they were announced before its start; `messages` are unread.
    `read`: number of the last message that an earlier claim has read. `claimed_ms`: time of the claim by the clock of
    Redis. `owner`: name of the claim, see Lease.
    """

    run: RunRecord
    journal: dict[str, bytes]
    files: dict[str, FileEntry]
    folders: dict[str, FolderEntry] = {}
    segments: Sequence[Segment] = ()
    inputs: Mapping[str, Input] = {}
    messages: Sequence[UserMessage] = ()
    read: int = 0
    claimed_ms: int = 0
    owner: str = ""


class Lease:
    """A worker's hold on a claimed run: the fence, and the number of the last batch stored under that fence.

    `user`: user of the run, for whom usage is counted; needed for writes with usage alone. `owner`: name of the claim.
    It tells two claims with the same fence apart, of which Redis has lost the first; if empty, the fence alone counts.
    """

    def __init__(self, run_id: str, fence: int, user: str = "", owner: str = "") -> None:
        self.run_id = run_id
        self.fence = fence
        self.user = user
        self.owner = owner
        self.batch = 0


MAX_DEAD_PROCESSES = 16


@dataclass(frozen=True)
class ClaimSeq:
    """Sequence number of a claim within one worker process.

    `last_acked`: number of the last claim whose reply arrived, if later replies were lost; else None. `dead`: names of
    worker processes that have ended, at most MAX_DEAD_PROCESSES; the claim recovers their runs first.
    """

    process: str = ""
    number: int = 0
    last_acked: int | None = None
    dead: tuple[str, ...] = ()


UNNUMBERED = ClaimSeq()
"""Number of a claim whose lost reply is left to the lease."""


class QueueTally(msgspec.Struct, frozen=True):
    """Numbers that a claim has met on its way, without a command of their own.

    `ready`: runs that it left ready. `recovered`: reason → number of runs taken from lost workers. `ended`: (status,
    code of the error) → number of runs that the claim itself has ended; the code is empty for cancelled runs.
    """

    ready: int = 0
    recovered: Mapping[str, int] = {}
    ended: Mapping[tuple[str, str], int] = {}

    @classmethod
    def of(cls, counts: Mapping[str, str]) -> "QueueTally":
        """Return the tally in the names of the script."""
        parts = {tuple(name.split(":")): int(number) for name, number in counts.items()}
        return cls(
            ready=parts.get(("ready",), 0),
            recovered={name[1]: number for name, number in parts.items() if name[0] == "recovered"},
            ended={(name[1], name[2]): number for name, number in parts.items() if name[0] == "ended"},
        )


class ClaimReply(msgspec.Struct, frozen=True):
    """Reply to `claim`. `next_ms`: milliseconds until the next lease expiry or due run; None if there is none.

    `unreadable`: leases of granted runs whose records cannot be decoded; another worker could not decode them either.
    `set_aside`: id → reason of runs whose records the script could not process; they are no longer in the queue.
    """

    claims: list[Claim]
    unreadable: list[Lease]
    next_ms: int | None
    set_aside: Mapping[str, str] = {}
    tally: QueueTally = QueueTally()


class Recovery(msgspec.Struct, frozen=True):
    """Reply to `recover`; the fields are those of ClaimReply."""

    next_ms: int | None
    set_aside: Mapping[str, str]
    tally: QueueTally


class LeaseReply(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to `renew` and `emit`: whether the lease still holds, and whether a cancel or an interrupt was requested.

    `messages`: number of the last message to the run; 0 in replies to `renew`.
    """

    outcome: Outcome
    cancel: bool = False
    interrupt: bool = False
    messages: int = 0


class Writes(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that one fenced call stores, all or nothing.

    `events` go to the log; `journal` (key → JSON; an empty value removes the entry), `files` and `folders` (path →
    entry; None removes it) go into the record. `read` are the numbers of messages to the run that have been read.
    `usage` is added to the sums of the run, and of the day of its user.
    """

    events: list[NewEvent] = []
    journal: dict[str, str] = {}
    files: dict[str, FileEntry | None] = {}
    folders: dict[str, FolderEntry | None] = {}
    read: Sequence[int] = ()
    usage: RunUsage | None = None


class QueuePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Why a queued run has not begun.

    `ahead`: number of ready runs before it; at least that many if `ahead_capped`, 0 for a delayed run. `begins_ms`:
    earliest begin of a delayed run, in ms since the epoch. `workers_alive`: number of worker processes that have asked
    for work within ALIVE_MS and have not drained since.
    """

    ahead: int
    ahead_capped: bool
    begins_ms: int | None
    workers_alive: int


class QueueDepths(msgspec.Struct, frozen=True, kw_only=True):
    """Number of runs in each part of the queue.

    `pending` counts wake tokens; it equals `ready` whenever no claim is under way. `unreadable` counts active runs that
    were set aside because their records are damaged. `workers`: processes that asked for work within five minutes.
    """

    pending: int
    ready: int
    delayed: int
    running: int
    dead: int
    unreadable: int = 0
    waiting: int = 0
    workers: int = 0
