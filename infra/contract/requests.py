"""Requests of a waiting run to people, and their answers.

A run waits with one or several requests. Each has an id, under which it is answered once. As soon as every request has
an answer, the run is queued again. A request that nobody answers in time is denied, or fails the run (`on_expiry`).
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

MAX_REQUESTS = 16
"""Largest number of requests with which a run waits at a time."""
MAX_EXPIRY_MS = 30 * 24 * 3600 * 1000
"""Longest time that a request stays open."""
MAX_INPUT_CHARS = 100_000
MAX_COMMENT_CHARS = 2000
MAX_MESSAGE_CHARS = 8000
MAX_UNREAD_MESSAGES = 50
"""Largest number of messages to a run that its worker has not read yet."""
MAX_MESSAGES = 1000
"""Largest number of messages to a run in its life."""

OnExpiry: TypeAlias = Literal["deny", "fail"]
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID_HEX = 32


class OpenRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Request to a person. `question`: answered by a text; `approval`: by yes or no to exactly this call.

    `choices` are suggested answers. Long texts and arguments are truncated in the record and in the log; the id stands
    for the whole arguments.
    """

    id: Annotated[str, Meta(description="Id of the request, under which it is answered.")]
    kind: Annotated[
        Literal["question", "approval"], Meta(description="`question`: a text is wanted; `approval`: yes or no.")
    ]
    question: Annotated[str, Meta(description="Question, truncated to 8000 characters.")]
    expires_ms: Annotated[int, Meta(description="Time until which it can be answered, in ms since the epoch.")]
    on_expiry: Annotated[
        OnExpiry, Meta(description="Without an answer in time: `deny` goes on without one, `fail` fails the run.")
    ]
    tool: Annotated[str, Meta(description="Tool that is to be called, if the request is about a call.")] | None = None
    args: Annotated[dict[str, Any], Meta(description="Arguments of that call, truncated.")] | None = None
    choices: Annotated[list[str], Meta(description="Suggested answers; others are allowed.")] = []
    truncated: Annotated[bool, Meta(description="Whether question, choices or arguments are truncated here.")] = False


class GivenAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer as a person gives it: a text to a question; yes or no, perhaps with a comment, to an approval."""

    input: str | None = None
    approve: bool | None = None
    comment: str | None = None


class StoredAnswer(GivenAnswer, frozen=True, kw_only=True, omit_defaults=True):
    """Answer as it is stored: `by` a user at `at_ms` (ms since the epoch). `expired`: nobody answered in time."""

    at_ms: int
    by: str | None = None
    expired: bool = False


class UserMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Message of a user to a run; `number` counts the messages of the run from 1. `at_ms` is ms since the epoch."""

    text: str
    by: str
    at_ms: int
    number: int = 0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Open requests of a waiting run, and when it began to wait, in ms since the epoch."""

    requests: list[OpenRequest]
    since_ms: int


def request_id(run_id: str, place: str, tool: str, args: object) -> str:
    """Return the id of a request: the same for the same run, journal key, tool and arguments, and for no others."""
    named = msgspec.json.encode([run_id, place, tool, args], order="deterministic")
    return hashlib.sha256(named).hexdigest()[:_ID_HEX]


def check_requests(requests: Sequence[OpenRequest], now_ms: int) -> None:
    """Raise ValueError unless a run may wait with these requests."""
    if not 1 <= len(requests) <= MAX_REQUESTS:
        raise ValueError(f"a run waits with 1 to {MAX_REQUESTS} requests, not {len(requests)}")
    if len({request.id for request in requests}) < len(requests):
        raise ValueError("two requests have the same id")
    for request in requests:
        if not _ID.fullmatch(request.id):
            raise ValueError(f"the id of a request must be 1 to 64 of A-Z a-z 0-9 _ -, not {request.id[:80]!r}")
        if request.expires_ms > now_ms + MAX_EXPIRY_MS:
            raise ValueError(f"a request stays open for {MAX_EXPIRY_MS} ms at most")
