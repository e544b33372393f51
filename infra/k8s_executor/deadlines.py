"""Nested deadlines of an execution: program, pod, Job, worker."""

import math
from dataclasses import dataclass

TRANSFER_S = 300.0
"""Time limit for fetching the files of a call, and for storing them."""
START_S = 120
"""Longest wait of the runner for its start."""
PULL_S = 600
"""Time for pulling the image and making the volumes."""
PENDING_S = 600
"""Time for finding a node, for which only the Job has a deadline."""
SLACK_S = 60
GRACE_S = 60
"""Time for storing what a program has left, when the pod is told to end."""


@dataclass(frozen=True)
class JobDeadlines:
    """Nested deadlines of a call in seconds, each above the one before: pod, Job, worker."""

    pod_s: int
    job_s: int
    worker_s: int


def deadlines(timeout_s: float) -> JobDeadlines:
    """Return the deadlines of a program with this timeout.

    The deadline of the pod counts from its acceptance by a node, the deadline of the Job from its creation. A pod that
    passes its own keeps its log and exit code; one whose Job passes its own is deleted.
    """
    pod_s = PULL_S + START_S + math.ceil(timeout_s + 2 * TRANSFER_S) + SLACK_S
    job_s = pod_s + PENDING_S + GRACE_S
    return JobDeadlines(pod_s, job_s, job_s + GRACE_S + SLACK_S)
