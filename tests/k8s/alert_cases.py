"""Series under which each alert fires, and similar ones under which it does not, as `promtool test rules` reads them.

One value a minute: `0+2x60` begins with 0 and grows by 2 sixty times.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Series: TypeAlias = dict[str, str]


@dataclass(frozen=True)
class AlertCase:
    """One alert. `summary` and `labels` are what the alert shows, with `severity` of its rule, after `at`."""

    alert: str
    fires: Series
    quiet: tuple[Series, ...]
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    at: str = "50m"


def waits(up_to_60: str, beyond: str) -> Series:
    """Return the buckets of a histogram of waits: claims up to 60 s, and all."""
    return {
        'swissbrain_queue_wait_seconds_bucket{le="60"}': up_to_60,
        'swissbrain_queue_wait_seconds_bucket{le="120"}': beyond,
        'swissbrain_queue_wait_seconds_bucket{le="+Inf"}': beyond,
    }


def buckets(name: str, limit: str, below: str, every: str, labels: str = "") -> Series:
    """Return the buckets of a histogram: values up to a limit, up to ten times it, and all."""
    return {
        f'swissbrain_{name}_bucket{{{labels}le="{limit}"}}': below,
        f'swissbrain_{name}_bucket{{{labels}le="{float(limit) * 10:g}"}}': every,
        f'swissbrain_{name}_bucket{{{labels}le="+Inf"}}': every,
    }


def ended(status: str, code: str, values: str) -> Series:
    return {f'swissbrain_runs_ended_total{{status="{status}", code="{code}"}}': values}


CLAIMED = 'swissbrain_runs_claimed_total{claim="new", pod="w1"}'
READY = 'swissbrain_queue_ready_runs{pod="w1"}'
SLOTS = 'swissbrain_worker_slots{pod="w1"}'
KEDA = 'keda_scaler_metrics_value{scaledObject="agent-worker", scaler="s2-redis-jobs-pending"}'
REPLICAS = 'kube_deployment_spec_replicas{namespace="agents", deployment="agent-worker"}'
LOST = 'swissbrain_attempts_ended_total{outcome="lost"}'
EXPIRED = 'swissbrain_runs_recovered_total{reason="lease_expired"}'
S3_OK = 'swissbrain_s3_requests_total{operation="PutObject", status="2xx"}'
S3_BAD = 'swissbrain_s3_requests_total{operation="PutObject", status="5xx"}'
S3_NONE = 'swissbrain_s3_requests_total{operation="GetObject", status="none"}'
S3_MISSING = 'swissbrain_s3_requests_total{operation="HeadObject", status="4xx"}'
REPLIED = 'swissbrain_model_exchanges_total{outcome="replied"}'
BUSY = 'swissbrain_model_exchanges_total{outcome="busy"}'
CHF, USD = 'swissbrain_model_cost_total{currency="CHF"}', 'swissbrain_model_cost_total{currency="USD"}'

CASES = (
    AlertCase(
        "SwissBrainQueueSlow",
        waits("0+5x60", "0+10x60"),
        (waits("0+10x60", "0+10x60"), waits("0+10x40 400x20", "0+10x60")),
        "New runs wait for 1m 48s before a worker takes them.",
    ),
    AlertCase(
        "SwissBrainQueueStuck",
        {READY: "3x60", CLAIMED: "0+1x10 10x50"},
        (
            {READY: "3x60", CLAIMED: "0+1x60"},
            {READY: "3x45 0 3x20", CLAIMED: "10x60"},
            {READY: "3x60", CLAIMED: "10x60", 'swissbrain_queue_ready_runs{pod="w2"}': "0x60"},
        ),
        "3 runs are ready, and no worker has taken one for ten minutes.",
    ),
    AlertCase(
        "SwissBrainQueueWithoutWorkers",
        {KEDA: "0x10 4x50"},
        ({KEDA: "4x60", SLOTS: "8x60"}, {KEDA: "0x60"}, {KEDA: "0x47 4x3 0x10"}),
        "KEDA counts 4 runs in the queue, and no worker is there.",
    ),
    AlertCase(
        "SwissBrainWorkersDown",
        {REPLICAS: "2x60", SLOTS: "8x10 stale"},
        ({REPLICAS: "2x60", SLOTS: "8x60"}, {REPLICAS: "0x60"}),
        "2 workers are wanted, and none answers Prometheus.",
    ),
    AlertCase(
        "SwissBrainWorkerUnfit",
        {
            'swissbrain_worker_fit{pod="w1",part="object store"}': "0x60",
            'swissbrain_worker_fit{pod="w1",part="sandbox"}': "1x60",
        },
        ({'swissbrain_worker_fit{pod="w1",part="object store"}': "1x47 0x2 1x20"},),
        "The worker w1 claims nothing, because the check of its object store fails.",
        {"pod": "w1", "part": "object store"},
    ),
    AlertCase(
        "SwissBrainRedisSilent",
        # Its container is restarted, and the age begins at 0 again.
        {'swissbrain_redis_reply_age_seconds{pod="w1"}': " ".join(["0+60x6"] * 9)},
        ({'swissbrain_redis_reply_age_seconds{pod="w1"}': "240x60"},),
        "Redis had not replied to the worker w1 for 6m 0s.",
        {"pod": "w1"},
    ),
    AlertCase(
        "SwissBrainPlatformFailures",
        ended("failed", "worker_lost", "0x40 3x20") | ended("failed", "internal_error", "0x60"),
        (
            ended("failed", "worker_lost", "0x40 2x20"),
            ended("failed", "other", "0+10x60"),
            ended("failed", "worker_lost", "0x20 9x40"),
        ),
        "3 runs failed within 15 minutes for reasons that are not theirs.",
    ),
    AlertCase(
        "SwissBrainDeadLetters",
        ended("failed", "other", "0+1x60") | ended("succeeded", "", "0+0.5x60"),
        (
            ended("failed", "other", "0+1x60") | ended("succeeded", "", "0+2x60"),
            ended("failed", "other", "0+0.2x60") | ended("succeeded", "", "0x60"),
        ),
        "50 runs became dead letters within an hour, more than half of all.",
    ),
    AlertCase(
        "SwissBrainLeaseLosses",
        {LOST: "0x40 2x20", EXPIRED: "0x40 2x20"},
        ({LOST: "0x40 1x20", EXPIRED: "0x40 1x20"}, {LOST: "0x20 9x40", EXPIRED: "0x20 9x40"}),
        "4 leases were lost within 15 minutes.",
    ),
    AlertCase(
        "SwissBrainEmitSlow",
        buckets("emit_duration_seconds", "1", "0+5x60", "0+10x60"),
        (buckets("emit_duration_seconds", "1", "0+10x60", "0+10x60"),),
        "Storing log events takes up to 9.82s.",
    ),
    AlertCase(
        "SwissBrainObjectStoreErrors",
        {S3_OK: "0+90x60", S3_BAD: "0+6x60", S3_NONE: "0+4x60"},
        ({S3_OK: "0+96x60", S3_BAD: "0+4x60"}, {S3_OK: "0+10x60", S3_MISSING: "0+90x60", S3_BAD: "0x60"}),
        "10% of the requests to the object store fail.",
    ),
    AlertCase(
        "SwissBrainOrphanedJobs",
        {"swissbrain_jobs_reaped_total": "0x30 12x30"},
        ({"swissbrain_jobs_reaped_total": "0x30 8x30"},),
        "12 Jobs without an owner were deleted within an hour.",
    ),
    AlertCase(
        "SwissBrainExecutorBlind",
        {'swissbrain_executor_observed_age_seconds{pod="w1", executor="kubernetes"}': "0+60x60"},
        ({'swissbrain_executor_observed_age_seconds{pod="w1", executor="kubernetes"}': "45x60"},),
        "The API server has told the worker w1 nothing about pods for 50m 0s.",
        {"pod": "w1", "executor": "kubernetes"},
    ),
    AlertCase(
        "SwissBrainUnreadableRecords",
        {"swissbrain_runs_set_aside_total": "0x30 1x30"} | ended("failed", "unreadable_record", "0x60"),
        ({"swissbrain_runs_set_aside_total": "5x60"} | ended("failed", "unreadable_record", "2x60"),),
        "1 runs have records that cannot be read.",
    ),
    AlertCase(
        "SwissBrainModelFailures",
        {REPLIED: "0+7x60", BUSY: "0+3x60"},
        ({REPLIED: "0+9x60", BUSY: "0+1x60"}, {REPLIED: "0+7x60", BUSY: "0+3x38 114x30"}),
        "30% of the exchanges with models give no usable reply.",
    ),
    AlertCase(
        "SwissBrainBudget",
        {CHF: "0+3x60", USD: "0+1x60"},
        ({CHF: "0+1.5x60", USD: "0+1.5x60"},),
        "Models have cost 150 CHF within a day.",
        {"currency": "CHF"},
    ),
    AlertCase(
        "SwissBrainLoopLag",
        buckets("event_loop_lag_seconds", "0.5", "0+30x60", "0+60x60", 'pod="w1", '),
        (buckets("event_loop_lag_seconds", "0.5", "0+60x60", "0+60x60", 'pod="w1", '),),
        "The event loop of the worker w1 is up to 4.91s late.",
        {"pod": "w1"},
    ),
)
