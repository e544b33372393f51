"""Waiting times of log readers after a failure."""

import random

RETRY_FIRST_S = 0.05
RETRY_LAST_S = 5.0


def backoff_s(failures: int) -> float:
    """Return the seconds to wait: RETRY_FIRST_S, doubled with each failure up to RETRY_LAST_S, times 0.5 to 1."""
    # The jitter spreads the load, because all clients of a run lose their upstream at the same moment.
    return min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
