"""Base classes of the data of events: truncated to one event, or split into several."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the data of events. A field without a value is omitted.

    `TYPE` is the type of the event, `MAX_TEXT_CHARS` the number of characters to which each text is truncated.
    """

    TYPE: ClassVar[str]
    MAX_TEXT_CHARS: ClassVar[int] = 2000


class Truncated(EventData, frozen=True, kw_only=True):
    """Base of data that is logged as one event, truncated if it is too long."""


class Splittable(EventData, frozen=True, kw_only=True):
    """Base of data that is logged completely, as several consecutive events if it is too long for one.

    `SPLIT_FIELD` is the field that is split.
    """

    SPLIT_FIELD: ClassVar[str] = "text"

    more: Annotated[
        bool, Meta(description="Whether the next event of the same type, step and stream continues this one.")
    ] = False

    def position(self, _at: int) -> Mapping[str, int | bool]:
        """Return the fields that depend on the index `_at` in the complete value at which a part begins."""
        return {}
