"""Times as people write them."""

import time
from datetime import datetime

import typer


def future_ms(text: str) -> int:
    """Return an ISO 8601 time to come as ms since the epoch; local time without an offset. Raises BadParameter."""
    try:
        at_ms = int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):  # malformed, or in a year that datetime cannot convert
        raise typer.BadParameter(f"'{text}' is not a time such as 2026-11-30T02:00 or 2026-11-30T02:00Z") from None
    if at_ms < time.time() * 1000:
        raise typer.BadParameter(f"'{text}' is in the past")
    return at_ms
