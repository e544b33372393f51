"""Exchanges of an agent run with models, each journaled as soon as its reply is there."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from infra import metrics
from infra.contract.events import ContextCompacted, ModelMessage, ModelStarted
from infra.contract.llm import ChatMessage, LanguageModel, ModelCut, ModelError, ModelRequest, Reply, ToolSpec, Usage
from infra.contract.log import NewEvent
from infra.contract.usage import RunUsage
from worker.agent.deltas import DeltaLog
from worker.agent.entries import Exchange, Purpose, Setup, model_key
from worker.run.context import RunContext
from worker.run.emitter import new_event, new_events, now_ms
from worker.tracing import model_span, note_reply


@dataclass(frozen=True)
class Question:
    """Everything that exchange `n` is asked with.

    `seconds`: time that the exchange may take. `step`: index of the plan's step, for the log. `covers`: see Exchange.
    """

    n: int
    purpose: Purpose
    messages: Sequence[ChatMessage]
    tools: Sequence[ToolSpec]
    output_tokens: int
    seconds: float
    step: int | None
    covers: int = 0


async def ask_model(
    model: LanguageModel,
    context: RunContext,
    setup: Setup,
    question: Question,
    delta_s: float,
    more_events: Callable[[Exchange], Sequence[NewEvent]],
) -> Exchange:
    """Return the journaled exchange, or ask for it and journal it before the call returns, with `more_events`.

    Raises ModelError except for a cut reply, which becomes an exchange with a `problem`; TimeoutError after
    `question.seconds`.
    """
    request = ModelRequest(
        models=setup.models,
        messages=question.messages,
        tools=question.tools,
        purpose=question.purpose,
        max_output_tokens=question.output_tokens,
        must_call=bool(question.tools),
        stream=setup.stream,
    )

    async def ask() -> Exchange:
        started = ModelStarted(n=question.n, model=setup.models[0].name, purpose=question.purpose)
        await context.emitter.emit(started, step=question.step)
        began, at_ms = time.monotonic(), now_ms()
        deltas = DeltaLog(context.emitter, question.n, delta_s, question.step)
        try:
            reply = await _reply(model, request, deltas, setup, question.seconds)
            await deltas.end()
        except ModelCut as exc:
            return Exchange(
                purpose=question.purpose,
                text="",
                model=setup.models[0].name,
                usage=exc.usage,
                at_ms=at_ms,
                ms=int((time.monotonic() - began) * 1000),
                problem=str(exc),
            )
        except ModelError as exc:
            context.count(_counted(setup, exc.usage, exchanges=0))
            raise
        finally:
            await deltas.close()
        return _exchange(reply, question, at_ms)

    def events(exchange: Exchange) -> Sequence[NewEvent]:
        return [*_events(question, exchange), *more_events(exchange)]

    return await context.once(
        model_key(question.n),
        Exchange,
        ask,
        done=events,
        usage=lambda exchange: _counted(setup, exchange.usage, exchanges=1),
        flush=True,
    )


def _counted(setup: Setup, usage: Usage, *, exchanges: int) -> RunUsage:
    """Return the usage for the sums of the run and of its user. All prices have one currency."""
    prices = [model.price for model in setup.models if model.price]
    return RunUsage.of(usage, prices[0].currency if prices else None, exchanges=exchanges)


async def _reply(model: LanguageModel, request: ModelRequest, deltas: DeltaLog, setup: Setup, seconds: float) -> Reply:
    """Ask for a reply, and count the exchange in the metrics, also without a reply. Raises ModelError, TimeoutError."""
    began = time.monotonic()

    def count(usage: Usage, failure: Exception | None = None) -> None:
        metrics.model_asked(failure, _counted(setup, usage, exchanges=1), time.monotonic() - began)

    try:
        with model_span(request.models[0].name) as span:
            async with asyncio.timeout(seconds):
                reply = await model.ask(request, deltas)
            note_reply(span, reply)
    except (ModelError, TimeoutError) as exc:
        count(exc.usage if isinstance(exc, ModelError) else Usage(), exc)
        raise
    count(reply.usage + reply.wasted)
    return reply


def _exchange(reply: Reply, question: Question, at_ms: int) -> Exchange:
    return Exchange(
        purpose=question.purpose,
        text=reply.text,
        calls=reply.calls,
        model=reply.model,
        served=reply.served,
        usage=reply.usage + reply.wasted,
        opaque=reply.opaque,
        tries=reply.tries,
        at_ms=at_ms,
        ms=reply.ms,
        covers=question.covers,
    )


def _events(question: Question, exchange: Exchange) -> list[NewEvent]:
    usage = exchange.usage
    message = ModelMessage(
        text=exchange.text,
        n=question.n,
        purpose=exchange.purpose,
        model=exchange.model,
        calls=len(exchange.calls),
        problem=exchange.problem or UNSET,
        input_tokens=usage.input,
        output_tokens=usage.output,
        cached_tokens=usage.cached,
        reasoning_tokens=usage.reasoning,
        cost_micros=UNSET if usage.cost_micros is None else usage.cost_micros,
    )
    events = new_events(message, question.step)
    if exchange.covers and not exchange.problem:
        events.append(new_event(ContextCompacted(before=exchange.covers), question.step))
    return events
