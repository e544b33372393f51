"""Filters of a log: by step, output stream and type of event."""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from edge_api.http.request_models import LogFilters
from infra.contract.errors import InvalidInput
from infra.contract.events import EVENTS, ToolOutput
from infra.contract.log import Event
from infra.contract.runs import MAX_PLAN_STEPS

STREAMS: Final = ("stdout", "stderr")
_NUMBER = re.compile(r"[0-9]{1,3}")


class EventFilter(msgspec.Struct, frozen=True):
    """Events that a reader wants: those that each non-empty set allows."""

    steps: frozenset[int] = frozenset()
    streams: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    @classmethod
    def of(cls, query: LogFilters) -> "EventFilter":
        """Return the filter of a request. Raises InvalidInput, naming the parameter and the allowed values."""
        return cls(
            steps=frozenset(map(_step, _values(query.step))),
            streams=_listed("stream", query.stream, STREAMS),
            types=_listed("type", query.type, EVENTS),
        )

    def __bool__(self) -> bool:
        return bool(self.steps or self.streams or self.types)

    def matches(self, event: Event) -> bool:
        """Return whether the reader wants the event."""
        return (
            (not self.types or event.type in self.types)
            and (not self.steps or event.step in self.steps)
            and (not self.streams or (event.type == ToolOutput.TYPE and event.data.get("stream") in self.streams))
        )


def _values(text: str | None) -> list[str]:
    return [] if text is None else text.split(",")


def _step(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) >= MAX_PLAN_STEPS:
        allowed = f"0 to {MAX_PLAN_STEPS - 1}, several with commas between them"
        raise InvalidInput(f"'{text[:100]}' is not the index of a step; allowed are {allowed}", "step")
    return int(text)


def _listed(name: str, text: str | None, allowed: Collection[str]) -> frozenset[str]:
    values = frozenset(_values(text))
    if unknown := sorted(values - {*allowed}):
        listed = f"{', '.join(allowed)}; several with commas between them"
        raise InvalidInput(f"'{unknown[0][:100]}' is unknown; allowed are {listed}", name)
    return values


EVERY_EVENT: Final = EventFilter()
