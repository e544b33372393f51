"""Exit codes of the command."""

import signal

FAILED, USAGE, CANCELLED, NOT_ENDED = 1, 2, 3, 4
INTERRUPTED = 128 + signal.SIGINT
OUTCOMES = {"succeeded": 0, "failed": FAILED, "cancelled": CANCELLED}
"""Exit codes for the outcomes of a run."""
