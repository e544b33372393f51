"""Exit codes of the command."""

FAILED, USAGE, CANCELLED, NOT_ENDED = 1, 2, 3, 4
INTERRUPTED = 130  # 128 + SIGINT; `signal` takes half of the time of this import
OUTCOMES = {"succeeded": 0, "failed": FAILED, "cancelled": CANCELLED}
"""Exit codes for the outcomes of a run."""
