"""Items of a followed log, and the interface by which the two response classes read them."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from edge_api.http.response_models import Gap, Skipped, StreamEnd
from infra.contract.log import TERMINAL_EVENT, Event

Item: TypeAlias = Event | Gap | Skipped | StreamEnd


class ItemSource(Protocol):
    """Source of items in batches. Close it with `aclose()`, also after an error or a cancelled `next_batch()`."""

    async def next_batch(self) -> Sequence[Item] | None:
        """Wait for the next items and return them, at least one; None at the end."""
        ...

    async def aclose(self) -> None:
        """Release whatever the source holds open."""
        ...


def is_terminal_event(item: Item) -> bool:
    """Return whether the item is the last event of an attempt. A retried run has events after it."""
    return isinstance(item, Event) and item.type == TERMINAL_EVENT
