"""Times and durations as people write them."""

import math
import re
import time
from contextlib import suppress
from datetime import datetime

import typer

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)"
_DURATION = re.compile(rf"{_PART}(?: ?{_PART})*")


def seconds(text: str) -> float:
    """Return a duration such as `90`, `5m`, `1h30m` or `2d` in seconds. Raises BadParameter."""
    shown, value = text.strip().lower(), math.nan
    if _DURATION.fullmatch(shown):
        value = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, shown))
    else:
        with suppress(ValueError):
            value = float(shown)
    if not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"'{text}' is not a duration such as 90 (seconds), 5m, 1h30m or 2d")
    return value


def time_ms(text: str) -> int:
    """Return a time, or a duration before now such as `2h`, as ms since the epoch. Raises BadParameter."""
    if _DURATION.fullmatch(text.strip().lower()):
        return int(max(0.0, time.time() - seconds(text)) * 1000)
    return max(0, _instant_ms(text, ", nor a duration before now such as 2h"))


def future_ms(text: str) -> int:
    """Return a time to come as ms since the epoch. Raises BadParameter."""
    at_ms = _instant_ms(text)
    if at_ms < time.time() * 1000:
        raise typer.BadParameter(f"'{text}' is in the past")
    return at_ms


def _instant_ms(text: str, otherwise: str = "") -> int:
    """Return an ISO 8601 time as ms since the epoch; local time without an offset. Raises BadParameter."""
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):  # malformed, or in a year that datetime cannot convert
        example = "2026-11-30T02:00 or 2026-11-30T02:00Z"
        raise typer.BadParameter(f"'{text}' is not a time such as {example}{otherwise}") from None
