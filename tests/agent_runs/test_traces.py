"""Spans of runs: one trace from the request that created the run to its tools and models, and no content in it."""

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from infra.contract.runs import PlanStep, RunSpec
from infra.contract.states import Status
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import MODELS, AgentSite
from tests.support.waiting import until
from worker.toolkit.base import ToolContext

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SECRET = "purple-giraffe"
SAY = PlanStep(tool="message", args={"text": "hi"})
_exporter = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """Record all spans of this process; OpenTelemetry allows one provider a process."""
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(made)


@pytest.fixture(autouse=True)
def cleared() -> Iterator[None]:
    _exporter.clear()
    yield
    _exporter.clear()


def spans(run_id: str) -> list[ReadableSpan]:
    """Return the spans of the traces that this run has a span in, in the order of their beginning."""
    ended = _exporter.get_finished_spans()
    traces = {span.context.trace_id for span in ended if (span.attributes or {}).get("swissbrain.run.id") == run_id}
    return sorted((span for span in ended if span.context.trace_id in traces), key=lambda span: span.start_time or 0)


async def ended_spans(site: AgentSite, run_id: str) -> list[ReadableSpan]:
    """Return the spans of an ended run; that of its last attempt ends just after the run."""
    await site.ended(run_id)

    async def recorded() -> bool:
        runs = [span for span in spans(run_id) if span.name == "run"]
        return bool(runs) and len(runs) == (await site.store.get(run_id)).fence

    await until(recorded, "the last span has ended")
    return spans(run_id)


async def submit(site: AgentSite, traceparent: str | None, **spec: Any) -> str:
    run_id = f"run_{uuid.uuid4().hex}"
    await site.store.create(run_id, "ada", RunSpec(**spec), start=True, digest="d", traceparent=traceparent)
    return run_id


def parent_of(span: ReadableSpan) -> int:
    assert span.parent
    return span.parent.span_id


async def test_one_trace_from_the_request_to_tools_and_models_without_content(site: AgentSite) -> None:
    site.script(
        plan("Write the file"),
        ("file_write", {"path": f"{SECRET}.txt", "content": SECRET}),
        ("shell", {"command": f"echo {SECRET}; exit 3"}),
        finish(SECRET),
    )
    site.worker()
    run_id = await submit(site, TRACEPARENT, prompt=f"Write {SECRET}")
    found = await ended_spans(site, run_id)

    assert {f"{span.context.trace_id:032x}" for span in found} == {TRACE}
    queue, run, *inner = found
    assert [queue.name, run.name] == ["queue", "run"]
    assert {f"{parent_of(queue):016x}", f"{parent_of(run):016x}"} == {PARENT}
    assert {parent_of(span) for span in inner} == {run.context.span_id}
    asked = f"chat {MODELS[0].name}"
    tools = ["execute_tool file_write", "execute_tool shell"]
    assert [span.name for span in inner] == [asked, asked, tools[0], asked, tools[1], asked]
    attributes = dict(run.attributes or {})
    assert attributes == {
        "swissbrain.run.id": run_id,
        "swissbrain.run.attempt": 1,
        "swissbrain.run.fence": 1,
        "swissbrain.run.outcome": "succeeded",
    }
    used = (await site.store.get(run_id)).usage
    assert used
    assert sum(int(str((span.attributes or {}).get("gen_ai.usage.input_tokens", 0))) for span in inner) == used.input
    failed = [span for span in found if span.status.status_code is StatusCode.ERROR]
    assert [(span.name, (span.attributes or {})["error.type"]) for span in failed] == [
        ("execute_tool shell", "exit_code")
    ]
    for span in found:
        assert SECRET not in span.to_json()


async def test_each_attempt_is_a_span_of_the_same_trace(site: AgentSite) -> None:
    begun, calls = asyncio.Event(), 0

    async def body(_context: ToolContext, _command: str) -> None:
        nonlocal calls
        calls += 1
        begun.set()
        if calls == 1:
            await asyncio.Event().wait()

    first = site.rig.worker(body)
    run_id = await submit(site, TRACEPARENT, plan=[PlanStep(tool="shell", args={"command": "x"})])
    await begun.wait()
    await first.killed()
    await site.rig.expire_lease(run_id)
    site.rig.worker(body)
    found = await ended_spans(site, run_id)
    assert {f"{span.context.trace_id:032x}" for span in found} == {TRACE}
    attempts = [span.attributes or {} for span in found if span.name == "run"]
    assert [attempt["swissbrain.run.fence"] for attempt in attempts] == [1, 2]
    assert attempts[1]["swissbrain.run.outcome"] == "succeeded"


@pytest.mark.parametrize("traceparent", [None, f"00-{'0' * 32}-{PARENT}-01"])
async def test_without_a_usable_trace_the_run_determines_one(site: AgentSite, traceparent: str | None) -> None:
    site.worker()
    runs = [await submit(site, traceparent, plan=[SAY]) for _ in range(2)]
    for run_id in runs:
        found = await ended_spans(site, run_id)
        assert [span.name for span in found] == ["queue", "run", "execute_tool message"]
        trace_id = hashlib.sha256(run_id.encode()).hexdigest()[:32]
        assert {f"{span.context.trace_id:032x}" for span in found} == {trace_id}


async def test_a_trace_that_its_beginning_does_not_sample_is_not_recorded(site: AgentSite) -> None:
    site.worker()
    run_id = await submit(site, f"00-{TRACE}-{PARENT}-00", plan=[SAY])
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert spans(run_id) == []
