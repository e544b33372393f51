"""Strategy for prompts: asks models for a plan, lets them call tools step by step, and ends by a checked `finish`.

The loop is its own recovery. Every reply and every outcome of a call is journaled under its position, so a worker that
takes over a run walks through the same loop, and the journal answers, until the first position that it does not have.
Everything that the loop decides in between is a function of these entries (`turns`), except for a few things that
concern only what is about to be paid for or done: limits, draining, and dead ends.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from infra.contract.journal import CONTINUED
from infra.contract.llm import (
    ContextTooLong,
    LanguageModel,
    ModelBusy,
    ModelChoice,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    ToolSpec,
    Usage,
    estimated_tokens,
)
from infra.contract.log import NewEvent
from infra.contract.requests import UserMessage
from infra.contract.runs import RunError
from worker.agent import limits
from worker.agent.asking import Question, ask_model
from worker.agent.compaction import View, due
from worker.agent.conversation import messages, request_size
from worker.agent.entries import (
    FAILED,
    SETUP,
    Continued,
    Exchange,
    FailedExchanges,
    Purpose,
    Setup,
    Turn,
    model_key,
)
from worker.agent.progress import Progress, dead_end, next_purpose, progress_of
from worker.agent.reply_calls import ReplyCalls
from worker.agent.schemas import control_specs
from worker.agent.settings import AgentSettings
from worker.agent.setup import build_setup, check_output_schema
from worker.agent.state import AgentState
from worker.run.context import RunContext
from worker.run.emitter import new_event
from worker.run.retrying import requeue_delay_ms
from worker.run.strategy import Drained, Postponed
from worker.toolkit.base import Tool


class Supervisor:
    """Works on runs with a prompt and no plan; implements Strategy. `models`: the configured ones, preferred first."""

    def __init__(
        self,
        model: LanguageModel,
        models: Sequence[ModelChoice],
        tools: Mapping[str, Tool],
        settings: AgentSettings,
    ) -> None:
        self._model = model
        self._models = models
        self._tools = tools
        self._settings = settings

    async def close(self) -> None:
        """Close the connections to the models."""
        await self._model.close()

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        """Work until the model has finished and its result is checked; return that result.

        Raises StepFailed, Postponed, Waits, FilesUnavailable, HostExhausted, ExecutorUnavailable, LeaseLost.
        """

        continued = await context.recall(CONTINUED, Continued) if context.knows(CONTINUED) else Continued()
        failed = await context.recall(FAILED, FailedExchanges) if context.knows(FAILED) else FailedExchanges()

        async def begin() -> Setup:
            await check_output_schema(context.run.spec)
            files = await context.list_files()
            return build_setup(context.run.spec, self._settings, self._models, files, continued.task, self._tools)

        setup = await context.once(SETUP, Setup, begin)
        state = AgentState(context, setup, self._settings.caps, self._tools, draining, continued, failed=failed)
        while True:
            inbox = await state.hear()
            progress = progress_of(state.turns)
            if progress.end and not inbox:
                return dict(progress.end.result)
            live = not context.knows(model_key(state.n))
            state.turns.append(await self._turn(state, inbox, progress))
            # Not after a journaled reply: so a retry of the run gives the model one more try.
            if live and (error := dead_end(state.turns)):
                raise await state.failure(error)

    async def _turn(self, state: AgentState, inbox: Sequence[UserMessage], progress: Progress) -> Turn:
        """Return the next turn: the reply, and the outcome of each of its calls."""
        n = state.n
        if state.context.knows(model_key(n)):
            exchange = await state.context.recall(model_key(n), Exchange)
        else:
            exchange = await self._ask(state, inbox, progress)
        turn = Turn(n=n, inbox=inbox, exchange=exchange)
        return await ReplyCalls(state, turn, progress).make() if exchange.calls else turn

    async def _ask(self, state: AgentState, inbox: Sequence[UserMessage], progress: Progress) -> Exchange:
        """Ask a model. Raises StepFailed if a limit is reached, or if no further try would help."""
        if state.draining():
            raise Drained
        setup, totals = state.setup, state.totals()
        view = View.of(setup, state.conversation)
        covers = due(view)
        purpose = next_purpose(progress, covers)
        conversation = messages(view, for_purpose=purpose, unread=inbox)
        tools = _offered(setup, purpose)
        size = estimated_tokens(request_size(conversation, tools))
        allowance = limits.output_allowance(
            state.limits, totals, setup.output_tokens, models=setup.models, input_tokens=size
        )
        worst = limits.worst_case(setup.models, size, allowance)
        await state.check(limits.reached(state.limits, totals, worst, caps=state.caps))
        question = Question(
            n=state.n,
            purpose=purpose,
            messages=conversation,
            tools=tools,
            output_tokens=allowance,
            seconds=state.seconds_left(totals),
            step=progress.step if progress.steps else None,
            covers=covers or 0,
        )

        def near(exchange: Exchange) -> Sequence[NewEvent]:
            return _near_limits(state, Turn(n=question.n, inbox=inbox, exchange=exchange))

        began = time.monotonic()
        try:
            return await ask_model(self._model, state.context, setup, question, self._settings.delta_s, near)
        except TimeoutError:
            state.note_failure(Usage(), int((time.monotonic() - began) * 1000))
            reached = limits.out_of_time(state.limits, totals, caps=state.caps)
            raise await state.failure(RunError(code=reached.code, message=reached.message)) from None
        except ModelError as exc:
            state.note_failure(exc.usage, int((time.monotonic() - began) * 1000))
            raise await _after(exc, state) from exc


async def _after(failure: ModelError, state: AgentState) -> Exception:
    """Return how a run continues or ends after no model has given a usable reply."""
    run = state.context.run
    match failure:
        case ModelBusy():
            if delay_ms := state.pause_ms(int(failure.after_s * 1000)):
                return Postponed("model_busy", str(failure), delay_ms=delay_ms, burn=False)
            error = RunError(code="model_busy", message=f"the models were busy for 24 hours; last: {failure}")
        case ModelUnavailable() if run.attempt < run.spec.max_attempts:
            return Postponed("model_unavailable", str(failure), delay_ms=requeue_delay_ms(run.attempt), burn=True)
        case ModelUnavailable():
            error = RunError(code="model_unavailable", message=str(failure))
        case ContextTooLong():
            message = f"{failure} (LLM_CONTEXT_TOKENS may be larger than the context of the model)"
            error = RunError(code="context_overflow", message=message)
        case ModelRefused():
            error = RunError(code="model_refused", message=str(failure))
        case _:
            error = RunError(code="model_rejected", message=str(failure))
    return await state.failure(error)


def _near_limits(state: AgentState, turn: Turn) -> list[NewEvent]:
    """Return the events of limits that come near with this exchange, or came near with the calls before it."""
    last = [msgspec.structs.replace(each, records=()) for each in state.turns[-1:]]
    before = limits.Totals.of([*state.turns[:-1], *last], state.failed)
    return [new_event(event) for event in limits.near(state.limits, before, state.totals(turn))]


def _offered(setup: Setup, purpose: Purpose) -> Sequence[ToolSpec]:
    """Return the tools that a model may call in an exchange."""
    control = control_specs(setup.output_schema)
    if purpose == "summary":
        return []
    if purpose == "plan":
        return [spec for spec in control if spec.name == "plan"]
    return [*setup.tools, *(spec for spec in control if spec.name != "plan")]
