"""Webhooks: events of a run that are posted to a URL of its user.

The script that ends a run, or lets it wait, notes the event in the record of the run and, as an entry, in the outbox: a
sorted set with the time from which anybody who looks publishes the entry to QStash. Whoever noted it publishes it
immediately. QStash then calls DELIVER_PATH of the API, which posts the event to the user's URL.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Meta

WebhookEvent: TypeAlias = Literal["finished", "failed", "waiting", "limit"]
"""Reason for a call. `finished`: the run has succeeded, or was cancelled. `failed`: it has failed. `waiting`: it waits
for a person. `limit`: it has failed at one of its limits; without this reason that is `failed`, too."""
DEFAULT_EVENTS: Sequence[WebhookEvent] = ("finished", "failed", "waiting")
DELIVER_PATH = "/webhooks/deliver"
"""Path of the API that QStash calls."""
MAX_RETRIES = 3
"""Retries that QStash is asked for, of every call. After the last one the message is a dead letter."""

MAX_URL_CHARS = 2048
MAX_EVENTS = 20
"""Events of a run whose deliveries are kept; older ones are removed from the record."""
MAX_ATTEMPTS_SHOWN = 5
"""Attempts of an event that are kept, the last ones."""
MAX_ROUNDS = 20
"""Number of times that an event can be sent: once by itself, then by hand."""
MAX_OUTBOX = 100_000
MAX_USER_OUTBOX = 1000
"""Events in the outbox, in all and of one user. Further events are recorded as `dropped`, and can be sent by hand."""
GRACE_MS = 10_000
"""Time in which whoever noted an event publishes it, before others do."""
AGAIN_MS = 60_000
"""Time after which an entry that was taken, and is still there, is published again."""

DeliveryState: TypeAlias = Literal["pending", "delivered", "failed", "dropped"]


class EventSink(Protocol):
    """Receiver of what the scripts report about the outbox. It must return at once."""

    def noted(self, entry: str) -> None:
        """Take an entry that a script of this process has put into the outbox."""
        ...

    def due(self) -> None:
        """Note that there are entries which nobody has published in time."""
        ...


class EventRef(msgspec.Struct, frozen=True, kw_only=True):
    """Name of an event. `seq`: number of the event in the log of the run; `at_ms`: its time.

    With the time, because a run that was deleted and created again has the same id. `round`: how often the event was
    sent, this time included.
    """

    user: str
    run_id: str
    seq: int
    at_ms: int
    round: int = 1

    @property
    def entry(self) -> str:
        """Text by which the outbox and QStash know the event."""
        return f"{self.user}:{self.run_id}:{self.seq}:{self.at_ms}:{self.round}"

    @property
    def event_id(self) -> str:
        """Id by which receivers recognise the event: the same in each attempt and in each round."""
        return f"{self.run_id}-{self.seq}-{self.at_ms}"

    @classmethod
    def parse(cls, entry: str) -> "EventRef":
        """Return the reference of an entry. Raises ValueError, also for one that is not UTF-8."""
        entry.encode()
        user, run_id, *numbers = entry.rsplit(":", 4)
        seq, at_ms, round_ = map(_number, numbers)
        return cls(user=user, run_id=run_id, seq=seq, at_ms=at_ms, round=round_)

    @classmethod
    def of_event_id(cls, user: str, run_id: str, event_id: str) -> "EventRef":
        """Return the reference of an event of a run by its id. Raises ValueError."""
        owner, seq, at_ms = event_id.rsplit("-", 2)
        if owner != run_id:
            raise ValueError("the event is of another run")
        return cls(user=user, run_id=run_id, seq=_number(seq), at_ms=_number(at_ms))


class NotedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Event as the record of its run has it. `code`: of the run's error; `dropped`: the outbox was full."""

    event: WebhookEvent
    status: str
    at_ms: int
    code: str | None = None
    dropped: bool = False


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Attempt to post an event. `status`: of the answer, None without one; `error`: why it was not accepted."""

    at_ms: int
    ms: int
    status: int | None = None
    error: str | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Event with its deliveries. `attempts`: number of all; `last_attempts`: the last ones, oldest first."""

    ref: EventRef
    noted: NotedEvent
    state: DeliveryState
    attempts: int
    last_attempts: list[DeliveryAttempt]


class DeliveryTask(msgspec.Struct, frozen=True, kw_only=True):
    """Event that is to be posted now, with what its receiver is sent."""

    url: str
    noted: NotedEvent
    metadata: dict[str, str]
    created_ms: int
    started_ms: int | None


WebhookUrl = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_URL_CHARS, description="URL that is called when the run ends, or waits."),
]
WebhookEvents = Annotated[
    list[WebhookEvent],
    Meta(min_length=1, max_length=4, description="Reasons for calls; default: finished, failed, waiting."),
]


def subscribed(events: Sequence[WebhookEvent] | None) -> str:
    """Return the reasons for calls as the scripts read them: with a comma before and after each."""
    return f",{','.join(dict.fromkeys(events or DEFAULT_EVENTS))},"


def _number(text: Any) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 17):
        raise ValueError("not a number")
    return int(text)
