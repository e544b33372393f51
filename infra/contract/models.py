"""The records of the run contract: what is asked, what is kept, what is logged."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from infra.contract.errors import InvalidInput
from infra.contract.states import Outcome, Status
from infra.contract.tools import parse_args

RECORD_VERSION = 1

MAX_PROMPT_CHARS = 100_000
MAX_PLAN_STEPS = 200
MAX_METADATA_KEYS = 50
MAX_ATTEMPTS = 20
MAX_TIMEOUT_S = 24 * 3600.0
MAX_DELAY_S = 30 * 24 * 3600.0
MAX_MS = 2**53 - 1
TITLE_CHARS = 120
MAX_ERROR_CHARS = 5000

TERMINAL_EVENT: Final = "run.finished"


class PlanStep(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """One tool call of an explicit plan."""

    tool: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    args: dict[str, Any] = {}
    timeout_s: (
        Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S, description="Seconds before the step fails.")] | None
    ) = None
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


Metadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
        Annotated[str, msgspec.Meta(max_length=512)],
    ],
    msgspec.Meta(max_length=MAX_METADATA_KEYS),
]


class ForkOf(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Another run of the same user whose first `from_step` steps, with all they did, are those of this run too."""

    run_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    from_step: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAN_STEPS, description="The first step to execute anew.")]


class RunSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a user asks for. A prompt, an explicit plan, or both."""

    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    plan: Annotated[list[PlanStep], msgspec.Meta(min_length=1, max_length=MAX_PLAN_STEPS)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=8, description="0 is last, 8 is first.")] = 4
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS)] = 3
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)] = 3600.0
    metadata: Metadata = {}
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S, description="Begin so long after the start.")] = 0.0
    start_at_ms: (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_MS, description="Begin at this time, in ms since the epoch.")] | None
    ) = None
    queue_ttl_s: (
        Annotated[float, msgspec.Meta(gt=0, le=MAX_DELAY_S, description="Fail if no worker begins it so soon.")] | None
    ) = None
    fork_of: ForkOf | None = None

    def check(self) -> None:
        """Raise InvalidInput for what the types cannot say, or do not check where no body is decoded."""
        if self.delay_s and self.start_at_ms is not None:
            raise InvalidInput("give 'delay_s' or 'start_at_ms', not both", "$.start_at_ms")
        if self.prompt is None and self.plan is None:
            raise InvalidInput("a run needs a 'prompt', a 'plan', or both", "$")
        if self.plan is not None and not 1 <= len(self.plan) <= MAX_PLAN_STEPS:
            raise InvalidInput(f"the plan has {len(self.plan)} steps; allowed are 1 to {MAX_PLAN_STEPS}", "$.plan")
        for index, step in enumerate(self.plan or ()):
            parse_args(step.tool, step.args, at=f"$.plan[{index}]")


class RunError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a run failed. `code` is stable, `message` is for people, `step` is the index of the failing step.

    The record keeps MAX_ERROR_CHARS of the message.
    """

    code: str
    message: str
    step: int | None = None


class Brief(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a list shows of a spec, kept apart from it because prompts and plans can be large.

    `title` is the first line of the prompt, or the plan's steps, cut to TITLE_CHARS; `steps` is how many the plan has.
    """

    title: str
    steps: int | None = None
    priority: int = 4
    metadata: dict[str, str] = {}

    @classmethod
    def of(cls, spec: RunSpec) -> "Brief":
        """That of a spec."""
        if spec.prompt is not None:
            title = spec.prompt.strip().partition("\n")[0].strip()
        else:
            title = ", ".join(step.name or step.tool for step in spec.plan or ())
        if len(title) > TITLE_CHARS:
            title = f"{title[: TITLE_CHARS - 1]}…"
        steps = len(spec.plan) if spec.plan else None
        return cls(title=title, steps=steps, priority=spec.priority, metadata=spec.metadata)


class RunHead(msgspec.Struct, frozen=True, kw_only=True):
    """A run without what can be large. Times are ms since the epoch by Redis's own clock; None where there is none yet.

    `seq` is that of the log's last event. A run that is `condemned` is being deleted.
    """

    id: str
    user: str
    status: Status
    brief: Brief
    attempt: int
    seq: int
    cancel: bool
    created_ms: int
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    error: RunError | None
    condemned: bool


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a log that is kept in the archive: the events `first` to `last`, stored under a claim's `fence`.

    The segments of a run follow on each other from event 1. An object is never written twice, so a segment that a
    record names always means the same bytes.
    """

    first: int
    last: int
    fence: int


class RunLog(RunHead, frozen=True, kw_only=True):
    """A run for those who read its log: what is in the archive is no longer in Redis."""

    segments: Sequence[Segment] = ()

    @property
    def archived(self) -> int:
        """The sequence number of the last event in the archive; 0 if there is none."""
        return self.segments[-1].last if self.segments else 0


class RunRecord(RunHead, frozen=True, kw_only=True):
    """A run as it is kept; `fence` grows with each claim."""

    spec: RunSpec
    fence: int
    worker: str | None
    result: dict[str, Any] | None
    user_input: str | None


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a run's log. `seq` is 1, 2, 3 … without a hole; `ts` is ms since the epoch; `step` counts from 0."""

    seq: int
    ts: int
    type: str
    step: int | None = None
    data: dict[str, Any] = {}


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event before it has its sequence number, which only the scripts give.

    `type` is one of `events.EVENTS`, or one of a newer release's: readers pass on what they do not know.
    """

    ts: int
    type: str
    step: int | None = None
    data: dict[str, Any] = {}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one emit appends to the stream and publishes, the same bytes in both: `events` begin at seq `first`."""

    first: int
    events: list[NewEvent]

    def numbered(self) -> list[Event]:
        """The events with their sequence numbers."""
        numbered = enumerate(self.events, self.first)
        return [Event(seq=n, ts=event.ts, type=event.type, step=event.step, data=event.data) for n, event in numbered]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One claim of a run. `attempt` counts those since the last retry that are not forgiven; a drain is.

    `outcome`: a terminal status, `waiting`, `drained`, `given_back` (tried again later), `lease_expired` (the worker
    was lost) or `unanswered` (it never heard of the claim); None, like `ended_ms`, while it goes on.
    """

    fence: int
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int | None = None
    outcome: str | None = None


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file as the run's record knows it. `key` is the rest of its object key after the run's prefix.

    An object is never written twice, so an entry always means the same bytes.
    """

    key: str
    size_bytes: int
    modified_ms: int
    executable: bool = False


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A run granted to a worker: the record, the journal of its completed steps (key → JSON), its files by path, and
    what of its log is in the archive.
    """

    run: RunRecord
    journal: dict[str, bytes]
    files: dict[str, FileEntry]
    segments: Sequence[Segment] = ()


class Writes(msgspec.Struct, frozen=True, kw_only=True):
    """What one fenced call stores, all or nothing.

    `events` go to the log, `journal` (key → JSON; empty takes the entry away) and `files` (path → entry; None takes
    the file away) into the record.
    """

    events: list[NewEvent] = []
    journal: dict[str, str] = {}
    files: dict[str, FileEntry | None] = {}


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `renew` and `emit`: whether the run is still ours, and whether its cancel was asked for."""

    outcome: Outcome
    cancel: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a user's runs, newest first. `cursor` asks for the next page; None at the end."""

    runs: list[RunHead]
    cursor: tuple[int, str] | None


class QueueDepths(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs stand where; `pending` counts wake tokens and equals `ready` whenever no claim is under way."""

    pending: int
    ready: int
    delayed: int
    running: int
    dead: int


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a workspace. `modified_ms` is ms since the epoch, as the object store says."""

    path: str
    size_bytes: int
    modified_ms: int


class FileChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What an executing tool did to the workspace; `skipped` holds links and special files that are never stored."""

    written: list[FileInfo]
    deleted: list[str]
    skipped: list[str]
