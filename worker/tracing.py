"""Spans of the worker's work, by OpenTelemetry's API. Without an exporter (`trace_export.py`) nothing is recorded.

No span holds a prompt, an argument, an output or a path: names, numbers and ids are all that leaves with a trace.
Names of attributes follow OpenTelemetry's conventions for generative models; those of the project begin with
`swissbrain.`.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infra.contract.llm import Reply
from infra.contract.runs import RunError, RunRecord

Attributes: TypeAlias = Mapping[str, str | int]

_tracer = trace.get_tracer("swissbrain.worker")
_propagator = TraceContextTextMapPropagator()


@contextmanager
def run_span(run: RunRecord) -> Iterator[Span]:
    """Record an attempt of a run, and before it the time in the queue, in the trace of the request that created it."""
    parent = _parent(run)
    of_run: Attributes = {"swissbrain.run.id": run.id, "swissbrain.run.attempt": run.attempt}
    if run.queued_ms is not None:
        queued_ns = run.queued_ms * 1_000_000
        queue = _tracer.start_span(
            "queue", parent, SpanKind.CONSUMER, attributes=of_run, start_time=min(queued_ns, time.time_ns())
        )
        queue.end()
    with _span("run", {**of_run, "swissbrain.run.fence": run.fence}, parent=parent) as recorded:
        yield recorded


def _parent(run: RunRecord) -> Context:
    """Return the trace that the run belongs to. Without one of its own, the run's id determines it.

    So all attempts are in one trace, whoever makes them, and the trace of a run can be found by the run's id.
    """
    given = _propagator.extract({"traceparent": run.traceparent} if run.traceparent else {}, Context())
    if trace.get_current_span(given).get_span_context().is_valid:
        return given
    digest = hashlib.sha256(run.id.encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    sampled = TraceFlags(TraceFlags.SAMPLED)
    derived = SpanContext(trace_id, span_id, is_remote=True, trace_flags=sampled)
    return trace.set_span_in_context(NonRecordingSpan(derived), Context())


def end_run(recorded: Span, outcome: str, error: RunError | None) -> None:
    """Note on the span of a run how the attempt ended, and why the run failed."""
    recorded.set_attribute("swissbrain.run.outcome", outcome)
    if error is not None:
        _fail(recorded, error.code)


def tool_span(tool: str, call: str) -> AbstractContextManager[Span]:
    """Record the block as the call `call` of a tool."""
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool, "gen_ai.tool.call.id": call}
    return _span(f"execute_tool {tool}", attributes)


def model_span(model: str) -> AbstractContextManager[Span]:
    """Record the block as an exchange with a model, by the name that the operator has configured."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
    return _span(f"chat {model}", attributes, kind=SpanKind.CLIENT)


def note_reply(recorded: Span, reply: Reply) -> None:
    """Note on the span of an exchange which model answered, and what it used."""
    recorded.set_attributes(
        {
            "gen_ai.response.model": reply.served,
            "gen_ai.response.finish_reasons": (reply.finish,),
            "gen_ai.usage.input_tokens": reply.usage.input,
            "gen_ai.usage.output_tokens": reply.usage.output,
            "swissbrain.model.tries": reply.tries,
        }
    )


@contextmanager
def _span(
    name: str, attributes: Attributes, *, kind: SpanKind = SpanKind.INTERNAL, parent: Context | None = None
) -> Iterator[Span]:
    """Record the block as a span below the current one, or below `parent`. An error marks it as failed by its code."""
    # The message of an error may hold content, so neither it nor the traceback is recorded.
    with _tracer.start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as recorded:
        try:
            yield recorded
        except Exception as exc:
            _fail(recorded, getattr(exc, "code", type(exc).__name__))
            raise


def _fail(recorded: Span, code: str) -> None:
    recorded.set_attribute("error.type", code)
    recorded.set_status(StatusCode.ERROR)
