"""Messages of one turn, whole or shortened to save space in the context of a model."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from infra.contract.llm import Call, ChatMessage
from infra.contract.requests import UserMessage
from worker.agent import prompts, tool_text
from worker.agent.entries import Turn
from worker.agent.schemas import CONTROL

NOT_EXECUTED = "This call was not executed."
PEOPLE_FACTOR = 8
"""Messages of people may be longer than other texts by this factor, where texts are shortened."""
_CALL_BYTES = 64
"""Bytes that a request has for each call beside its fields, at most."""
_MESSAGE_BYTES = 32

_encode = msgspec.json.Encoder().encode
Notices: TypeAlias = Sequence[tuple[int, int]]
"""Index of a call whose result is a repetition, and how often it came in a row."""


@dataclass(frozen=True)
class Rendered:
    """Messages, and their size in bytes (`message_size`)."""

    messages: Sequence[ChatMessage]
    size: int

    @classmethod
    def of(cls, messages: Sequence[ChatMessage]) -> "Rendered":
        """Measure messages."""
        return cls(messages, sum(message_size(message) for message in messages))


EMPTY = Rendered((), 0)

# A conversation is built again for each exchange, but a turn never changes, except that its last calls get records.
_rendered: dict[int, dict[Any, Rendered]] = {}


def rendered(turn: Turn, marker: str, notices: Notices = (), limit: int | None = None) -> Rendered:
    """Return the messages of a turn; kept as long as the turn is.

    Each call is followed by its result; a call without a record was not executed. `limit`: bytes after which outputs,
    arguments and texts are cut.
    """
    kept = _rendered.get(id(turn))
    if kept is None:
        kept = _rendered[id(turn)] = {}
        weakref.finalize(turn, _rendered.pop, id(turn), None).atexit = False
    key = (marker, tuple(notices), limit, len(turn.records))
    if key not in kept:
        kept[key] = Rendered.of([*inbox(turn.inbox, limit), *_exchange(turn, marker, dict(notices), limit)])
    return kept[key]


def inbox(messages: Sequence[UserMessage], limit: int | None = None) -> list[ChatMessage]:
    """Return the messages of people to a run."""
    longest = None if limit is None else limit * PEOPLE_FACTOR
    return [user(f"Message from {message.by}:\n\n{cut(message.text, longest)}") for message in messages]


def user(text: str) -> ChatMessage:
    """Return a message that the platform, or a person, sends to the model."""
    return ChatMessage(role="user", text=text)


def message_size(message: ChatMessage) -> int:
    """Return the bytes that a message has in the JSON of a request, or a few more."""
    return len(_encode(message)) + _MESSAGE_BYTES + _CALL_BYTES * len(message.calls)


def cut(text: str, limit: int | None) -> str:
    """Return a text, shortened to `limit` bytes if it is longer."""
    return text if limit is None else tool_text.shortened(text, limit)


def _exchange(turn: Turn, marker: str, notices: Mapping[int, int], limit: int | None) -> list[ChatMessage]:
    exchange = turn.exchange
    if exchange.purpose == "summary":  # the conversation has its text in another place, if it has any
        return []
    if exchange.problem:
        return [user(prompts.render("problem", problem=cut(exchange.problem, limit)))]
    # Servers repeat ids, and reject repeated ones; some take nothing but nine letters and digits.
    ids = [f"c{turn.n:04d}{index:04d}" for index in range(len(exchange.calls))]
    calls = [
        Call(id=call_id, name=call.name, arguments=_cut_arguments(call.arguments, limit))
        for call_id, call in zip(ids, exchange.calls, strict=True)
    ]
    text = cut(exchange.text, limit) if exchange.text.strip() else ""
    answers = [
        ChatMessage(role="tool", call_id=call_id, text=_answer(turn, index, marker, notices.get(index), limit))
        for index, call_id in enumerate(ids)
    ]
    reply = [ChatMessage(role="assistant", text=text, calls=calls, opaque=exchange.opaque)] if text or calls else []
    return [*reply, *(answers or [user(prompts.render("nudge"))])]


def _answer(turn: Turn, index: int, marker: str, count: int | None, limit: int | None) -> str:
    if index >= len(turn.records):
        return NOT_EXECUTED
    record = turn.records[index]
    text = cut(record.text, limit)
    if record.status != "refused" and record.tool not in CONTROL:
        text = tool_text.fenced(marker, record.tool, text)
    elif not text.strip():
        text = record.message or record.status
    return text if count is None else f"{text}\n\n{prompts.render('repeats', count=str(count))}"


def _cut_arguments(arguments: str, limit: int | None) -> str:
    """Return arguments, with long texts in them cut, or a part of them if that does not make them short."""
    if limit is None or len(arguments.encode()) <= limit:
        return arguments
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        short = _encode(
            {name: cut(each, limit // 2) if isinstance(each, str) else each for name, each in value.items()}
        )
        if len(short) <= limit:
            return short.decode()
    return _encode({"left_out": cut(arguments, limit // 2)}).decode()
