"""Conversation of an ended run, for a run that continues it."""

from collections.abc import Awaitable, Callable, Collection
from itertools import count, takewhile
from typing import TypeVar

import msgspec

from infra.contract.journal import CONTINUED
from infra.contract.requests import UserMessage
from worker.agent.entries import (
    SETUP,
    CallRecord,
    Continued,
    Exchange,
    Setup,
    Turn,
    inbox_key,
    model_key,
    tool_key,
)
from worker.agent.policy import is_tainted
from worker.run.people import Inbox

T = TypeVar("T")
MAX_TURNS = 400
"""Turns that are taken over; older ones are left out."""


async def conversation_of(keys: Collection[str], value: Callable[[str], Awaitable[bytes]]) -> Continued:
    """Return the conversation of a run. `keys`: of its journal; `value` returns the JSON of an entry."""

    async def entry(key: str, kind: type[T]) -> T:
        return msgspec.json.decode(await value(key), type=kind)

    before = await entry(CONTINUED, Continued) if CONTINUED in keys else Continued()
    if SETUP not in keys:
        return before

    async def inbox_of(n: int) -> list[UserMessage]:
        parts = takewhile(keys.__contains__, (inbox_key(n, part) for part in count()))
        return [message for key in parts for message in (await entry(key, Inbox)).messages]

    turns = list(before.turns)
    n = turns[-1].n + 1 if turns else 0
    while model_key(n) in keys:
        exchange = await entry(model_key(n), Exchange)
        inbox = await inbox_of(n)
        indices = range(len(exchange.calls))
        records = [await entry(tool_key(n, i), CallRecord) for i in indices if tool_key(n, i) in keys]
        turns.append(Turn(n=n, inbox=inbox, exchange=exchange, records=records))
        n += 1
    task = before.task or (await entry(SETUP, Setup)).task
    untrusted = before.untrusted or is_tainted(turns)
    unread = await inbox_of(n)
    return Continued(task=task, turns=_needed(turns)[-MAX_TURNS:], unread=unread, untrusted=untrusted)


def _needed(turns: list[Turn]) -> list[Turn]:
    """Return the turns that the last summary has not replaced."""
    for turn in reversed(turns):
        if turn.exchange.is_summary:
            return [each for each in turns if each.n >= turn.exchange.covers]
    return turns
