"""The wait that an HTTP answer asks for with `Retry-After`."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds, 0 or more; None without the header, or if it cannot be read. Names are in lower case.

    A date counts from the `Date` of the answer, if there is one: the clock of this host does not matter then.
    """
    text = headers.get("retry-after", "")
    if (seconds := finite_number(text)) is not None:
        return seconds
    try:
        now = _date(headers["date"]) if headers.get("date") else datetime.now(UTC)
        return max(0.0, (_date(text) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def finite_number(text: str) -> float | None:
    """Return a number of at least 0, for a smaller one 0; None for another text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return max(value, 0.0) if math.isfinite(value) else None


def _date(text: str) -> datetime:
    """Return a date of HTTP, of which one form names no zone. Raises ValueError, TypeError or OverflowError."""
    date = parsedate_to_datetime(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)
