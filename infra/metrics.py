"""Prometheus instruments of a worker process, served as `GET /metrics`; docs/metrics.md explains each.

The instruments are module-level, as log lines are: a counter belongs to the process, and passing each through the
constructors between the entry point and the place that counts would add parameters that only forward. They are in
REGISTRY, not in the default registry of prometheus_client, so that no library adds metrics unnoticed. Adapters that the
API uses as well know no metrics; the worker's entry point gives them a function to call.

Values of labels are bounded: names in our own code, never anything that a user has written. `known` maps everything
else to OTHER. No instrument costs a command of Redis.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from infra.contract.errors import ContractError
from infra.contract.llm import ModelBusy, ModelCut, ModelRefused, ModelRejected, ModelUnavailable
from infra.contract.queue import ClaimReply
from infra.contract.runs import RunError
from infra.contract.states import TERMINAL, Outcome
from infra.contract.tools import TOOLS
from infra.contract.usage import MICROS, RunUsage

# Without the times of creation of all series, which Prometheus would store as series of their own.
disable_created_metrics()  # type: ignore[no-untyped-call]

Instrument = TypeVar("Instrument", Counter, Gauge, Histogram)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REGISTRY = CollectorRegistry()
OTHER = "other"
"""Value of a label for everything that has no value of its own."""

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Labelled(dict[tuple[str, ...], Instrument], Generic[Instrument]):
    """Children of an instrument by the values of its labels. A lookup costs a tenth of `Instrument.labels`."""

    def __init__(self, instrument: Instrument) -> None:
        super().__init__()
        self.instrument: Instrument = instrument
        self._child: Callable[..., Instrument] = instrument.labels

    def __missing__(self, values: tuple[str, ...]) -> Instrument:
        child = self[values] = self._child(*values)
        return child


def known(value: str, values: Collection[str]) -> str:
    """Return the value of a label: the value itself if it is one of `values`, else OTHER."""
    return value if value in values else OTHER


def page() -> bytes:
    """Return all metrics in the text format of Prometheus. Any thread may call this."""
    return generate_latest(REGISTRY)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"swissbrain_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"swissbrain_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"swissbrain_{name}", text, labels, buckets=buckets, registry=REGISTRY)


ProcessCollector(registry=REGISTRY)

# Queue
SLOTS = _gauge("worker_slots", "Runs that this worker may work on at the same time.")
ACTIVE_RUNS = _gauge("worker_runs", "Runs that this worker works on.")
FIT = _gauge(
    "worker_fit", "1 if this part of the worker has passed its check, 0 if it failed: nothing is claimed then.", "part"
)
REDIS_REPLY_AGE = _gauge("redis_reply_age_seconds", "Time since Redis replied to a claim or to a renewal of leases.")
QUEUE_READY = _gauge("queue_ready_runs", "Ready runs that the last claim of this worker left in the queue.")
QUEUE_AGE = _gauge("queue_observed_age_seconds", "Age of swissbrain_queue_ready_runs: time since that claim.")
QUEUE_OLDEST = _gauge(
    "queue_oldest_wait_seconds", "Longest wait of a new run that the last claim with a grant, or without a rest, found."
)
QUEUE_WAIT = _histogram("queue_wait_seconds", "Time from when a new run was ready to its first claim.", _SLOW_S)
_CLAIMS = Labelled(_counter("claims_total", "Claims sent to Redis.", "outcome"))
_CLAIMED = Labelled(_counter("runs_claimed_total", "Runs granted to this worker: new ones, or again.", "claim"))
_RECOVERED = Labelled(_counter("runs_recovered_total", "Runs that claims have taken from lost workers.", "reason"))
SET_ASIDE = _counter("runs_set_aside_total", "Runs with unreadable records that claims have removed from the queue.")
_ENDED = Labelled(_counter("runs_ended_total", "Runs that this worker or its claims have ended.", "status", "code"))
_ATTEMPTS = Labelled(_counter("attempts_ended_total", "Attempts that have ended on this worker.", "outcome"))
RENEWALS_FAILED = _counter("lease_renewals_failed_total", "Renewals of leases without a reply of Redis in time.")

# Work
_STEPS = Labelled(_histogram("step_duration_seconds", "Duration of steps of explicit plans.", _SLOW_S, "status"))
_TOOLS = Labelled(_histogram("tool_call_duration_seconds", "Duration of calls of tools.", _SLOW_S, "tool", "status"))
EMIT = _histogram("emit_duration_seconds", "Time to store a batch of log events, with all tries.", _FAST_S)
EVENTS = _counter("log_events_total", "Log events stored in such batches; the last ones are stored with an outcome.")
LOOP_LAG = _histogram("event_loop_lag_seconds", "Delay of a timer of the event loop, measured every second.", _FAST_S)

# Connections
_REDIS = Labelled(_counter("redis_commands_total", "Commands sent to Redis.", "command", "script"))
_S3_REQUESTS = Labelled(_counter("s3_requests_total", "Requests to the object store.", "operation", "status"))
_S3_SENT = _counter("s3_sent_bytes_total", "Bytes of objects sent to the object store.")
_S3_RECEIVED = _counter("s3_received_bytes_total", "Bytes of objects that the object store has sent.")
REAPED = _counter("jobs_reaped_total", "Jobs of Kubernetes without an owner that this worker has deleted.")
EXECUTOR_AGE = _gauge("executor_observed_age_seconds", "Time since the last news of the pods of programs.", "executor")

# Models
_EXCHANGES = Labelled(_counter("model_exchanges_total", "Exchanges with models.", "outcome"))
EXCHANGE = _histogram("model_exchange_duration_seconds", "Duration of exchanges, with all tries and pauses.", _SLOW_S)
_TOKENS = Labelled(_counter("model_tokens_total", "Tokens of models; cached and reasoning are parts.", "kind"))
_COST = Labelled(_counter("model_cost_total", "Cost of models in units of the currency.", "currency"))
UNPRICED = _counter("model_unpriced_exchanges_total", "Exchanges whose cost is unknown.")

CODES = frozenset(
    {
        "executor_unavailable",
        "expired",
        "files_unavailable",
        "internal_error",
        "model_busy",
        "model_rejected",
        "model_unavailable",
        "timeout",
        "unreadable_record",
        "worker_lost",
        "worker_short",
    }
)
"""Codes of failed runs that may be the fault of the platform: the values of the label `code` beside OTHER."""
OUTCOMES = frozenset(
    {
        "cancelled",
        "drained",
        "failed",
        "files_unavailable",
        "lost",
        "message",
        "model_busy",
        "model_unavailable",
        "succeeded",
        "unable",
        "waiting",
        "worker_short",
    }
)
"""Ends of an attempt: `lost` if its lease was, a status, `waiting`, or why the run was given back."""
_EXCHANGE_OUTCOMES: Mapping[type[ContractError], str] = {
    ModelBusy: "busy",
    ModelCut: "cut",
    ModelRefused: "refused",
    ModelRejected: "rejected",
    ModelUnavailable: "unavailable",
}


def _begin_at_zero() -> None:
    """Create the series that alerts look at, because `increase` does not see a series that begins with its event."""
    for code in CODES | {OTHER}:
        run_ended("failed", code, 0)
    for status in ("succeeded", "cancelled"):
        run_ended(status, number=0)
    for outcome in OUTCOMES:
        _ATTEMPTS[outcome,].inc(0)
    for reason in ("lease_expired", "worker_restarted", "unanswered"):
        _RECOVERED[reason,].inc(0)
    for claim in ("new", "again"):
        _CLAIMED[claim,].inc(0)
    for outcome in ("replied", "timeout", *_EXCHANGE_OUTCOMES.values()):
        _EXCHANGES[outcome,].inc(0)
    for currency in ("CHF", "USD"):
        _COST[currency,].inc(0)


def claim_unanswered() -> None:
    """Count a claim whose reply did not arrive."""
    _CLAIMS["unanswered",].inc()


def claim_answered(reply: ClaimReply) -> None:
    """Count a claim and what it met, and set the gauges of the queue."""
    tally, runs = reply.tally, [claim.run for claim in reply.claims]
    waits_s = [run.first_wait_ms / 1000 for run in runs if run.fence == 1]
    again, set_aside = len(runs) - len(waits_s), len(reply.set_aside)
    answered_at = time.monotonic()
    _CLAIMS["answered",].inc()
    QUEUE_AGE.set_function(lambda: time.monotonic() - answered_at)
    QUEUE_READY.set(tally.ready)
    if waits_s or not tally.ready:
        QUEUE_OLDEST.set(max(waits_s, default=0.0))
    for wait_s in waits_s:
        QUEUE_WAIT.observe(wait_s)
    if waits_s:
        _CLAIMED["new",].inc(len(waits_s))
    if again:
        _CLAIMED["again",].inc(again)
    if set_aside:
        SET_ASIDE.inc(set_aside)
    for reason, number in tally.recovered.items():
        _RECOVERED[reason,].inc(number)
    for (status, code), number in tally.ended.items():
        run_ended(status, code, number)


def run_ended(status: str, code: str = "", number: int = 1) -> None:
    """Count runs that have ended. `code`: of the error; empty if there is none."""
    _ENDED[status, known(code, CODES) if code else ""].inc(number)


def outcome_written(outcome: Outcome, name: str, error: RunError | None) -> None:
    """Count an attempt, and its run if it has ended. `outcome`: reply to the write; `name`: what was to be written."""
    if outcome not in {Outcome.OK, Outcome.SAME}:
        attempt_ended("lost")
        return
    attempt_ended(name)
    if name in TERMINAL:
        run_ended(name, error.code if error else "")


def attempt_ended(outcome: str) -> None:
    """Count an attempt that has ended."""
    _ATTEMPTS[known(outcome, OUTCOMES),].inc()


def step_ended(status: str, seconds: float) -> None:
    """Count a step of an explicit plan."""
    _STEPS[status,].observe(seconds)


def tool_called(tool: str, status: str, seconds: float) -> None:
    """Count a call of a tool."""
    _TOOLS[known(tool, TOOLS), status].observe(seconds)


def redis_command(command: str, script: str = "") -> None:
    """Count a command sent to Redis, with the name of its script if it has one."""
    _REDIS[command, script].inc()


class S3Traffic:
    """Counts requests to the object store; implements TrafficObserver of `infra.workspace.client`."""

    def sent(self, size_bytes: int) -> None:
        """Count the bytes of an object."""
        _S3_SENT.inc(size_bytes)

    def answered(self, operation: str, status: int | None, received_bytes: int) -> None:
        """Count a request, and the bytes of an object."""
        _S3_REQUESTS[operation, f"{status // 100}xx" if status else "none"].inc()
        _S3_RECEIVED.inc(received_bytes)


def model_asked(failure: Exception | None, usage: RunUsage, seconds: float) -> None:
    """Count an exchange with a model: it failed unless `failure` is None."""
    outcome = "replied" if failure is None else OTHER
    for kind, name in _EXCHANGE_OUTCOMES.items():
        if isinstance(failure, kind):
            outcome = name
    if isinstance(failure, TimeoutError):
        outcome = "timeout"
    _EXCHANGES[outcome,].inc()
    EXCHANGE.observe(seconds)
    for kind_of_token in ("input", "output", "cached", "reasoning"):
        _TOKENS[kind_of_token,].inc(getattr(usage, kind_of_token))
    for currency, micros in usage.costs.items():
        _COST[currency,].inc(micros / MICROS)
    UNPRICED.inc(usage.unpriced)


_begin_at_zero()
