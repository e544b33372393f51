"""Moments as people write them."""

import time
from datetime import datetime

import typer


def moment_ms(text: str) -> int:
    """A moment to come, in ISO 8601, as ms since the epoch; without an offset in this machine's time zone.

    Raises BadParameter.
    """
    try:
        at_ms = int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):  # no time, or of no year that there is
        raise typer.BadParameter(f"'{text}' is not a time such as 2026-11-30T02:00 or 2026-11-30T02:00Z") from None
    if at_ms < time.time() * 1000:
        raise typer.BadParameter(f"'{text}' is in the past")
    return at_ms
