"""Place of a run in the queue, as text."""

from swissbrain.cli.terminal import duration
from swissbrain.models import Run


def why_queued(run: Run, now_ms: float) -> str:
    """Return what a queued run waits for, or nothing if that is not known."""
    waits = run.queue
    if run.status != "queued" or waits is None:
        return ""
    if waits.begins_ms is not None and waits.begins_ms > now_ms:
        return f": begins in {duration(waits.begins_ms - now_ms)}"
    if not waits.workers_alive:
        return ": no worker is alive"
    if waits.ahead == 0:
        return ": it is the next one"
    at_least = " or more" if waits.ahead_capped else ""
    return f": {waits.ahead}{at_least} runs are before it" if waits.ahead != 1 else ": one run is before it"
