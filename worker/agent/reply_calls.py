"""Calls of one reply, in order: approved, executed or refused, each with its record in the journal."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast

import msgspec
from msgspec import structs

from infra.contract.requests import OpenRequest, StoredAnswer, request_id
from infra.contract.runs import RunError
from worker.agent.calling import Place, call_tool, decide_once, refuse
from worker.agent.calls import Judged, judge
from worker.agent.control import ControlArgs, Situation
from worker.agent.entries import CallRecord, Turn, asked_key, repeat_key, tool_key
from worker.agent.limits import call_reached
from worker.agent.policy import is_tainted
from worker.agent.progress import Progress, planned_tools
from worker.agent.schemas import CONTROL, AskUserArgs
from worker.agent.state import AgentState
from worker.run.emitter import now_ms
from worker.run.executions import CallInterrupted
from worker.run.people import LONGEST_EXPIRY_MS, ask
from worker.run.strategy import Drained

Refusal: TypeAlias = tuple[str, str]
"""Code of a refusal, and the text for the model."""
_INTERRUPTED: Refusal = "interrupted", "Not executed: a person interrupted the run. Their message follows."
_CHOICES = ["repeat", "skip", "fail"]


class ReplyCalls:
    """Calls of the reply of a turn that has no records yet."""

    def __init__(self, state: AgentState, turn: Turn, progress: Progress) -> None:
        self._state = state
        self._turn = turn
        self._progress = progress
        self._answers: Mapping[str, StoredAnswer] = {}
        self._dropped = False

    async def make(self) -> Turn:
        """Return the turn with the records of all calls. Raises Waits if people must be asked before any is made."""
        state, turn = self._state, self._turn
        planned = planned_tools(state.turns) if state.setup.strict_plan else None
        tainted = state.continued.untrusted or is_tainted(state.turns)
        judged = judge(state.context.run.id, turn.n, turn.exchange, state.setup, planned, tainted=tainted)
        self._answers = await self._ask(judged)
        for each in judged:
            record = await self._record(each)
            self._progress = self._progress.after(record)
            self._turn = structs.replace(self._turn, records=[*self._turn.records, record])
        return self._turn

    async def _ask(self, judged: Sequence[Judged]) -> Mapping[str, StoredAnswer]:
        requests = [each.request for each in judged if each.request]
        key, context = asked_key(self._turn.n), self._state.context
        if not requests:
            return {}
        # An interrupt makes these calls obsolete. The journal may have the first of their refusals.
        if not context.knows(key) and (self._state.is_interrupted or context.knows(tool_key(self._turn.n, 0))):
            self._dropped = True
            return {}
        return await ask(context, key, requests)

    async def _record(self, judged: Judged) -> CallRecord:
        """Return the journaled record of a call, or make the call."""
        state = self._state
        key = tool_key(self._turn.n, judged.index)
        if state.context.knows(key):
            return await state.context.recall(key, CallRecord)
        if state.draining():
            raise Drained
        totals = state.totals(self._turn)
        place = Place(self._turn.n, judged.index, self._progress.step, state.seconds_left(totals))
        refusal = self._refusal(judged)
        if refusal:
            return await refuse(state.context, judged, place, *refusal)
        if isinstance(judged.args, AskUserArgs):
            return await self._answer(judged, place)
        if judged.call.name in CONTROL:
            args = cast("ControlArgs", judged.args)
            situation = Situation(
                judged.call.name, state.setup, self._progress, await state.context.list_files(), self._has_failed
            )
            return await decide_once(state.context, place, args, situation)
        await state.check(call_reached(state.limits, totals, caps=state.caps), self._turn)
        return await self._call(judged, place)

    @property
    def _has_failed(self) -> bool:
        return any(record.status != "succeeded" for record in self._turn.records)

    def _refusal(self, judged: Judged) -> Refusal | None:
        """Return why a call is not executed, if so."""
        if self._dropped or self._state.is_interrupted:
            if self._state.context.was_begun(tool_key(self._turn.n, judged.index)):
                return "interrupted", "A person interrupted the run during this call; nobody knows what it did."
            return _INTERRUPTED
        if judged.refusal:
            return judged.code, judged.refusal
        turning = [record.tool for record in self._turn.records if record.status == "succeeded"]
        if any(tool in {"plan", "replan", "finish"} for tool in turning):
            return "superfluous", "Not executed, because the calls before it have changed the plan or ended the run."
        if self._state.setup.strict_plan and "step_done" in turning:
            return "superfluous", "Not executed: the next step has begun, and its tools are others. Call it again."
        if judged.request is None:
            return None
        answer = self._answers.get(judged.request.id)
        if answer is None:  # an earlier release has not asked for it
            return _INTERRUPTED
        if judged.request.kind == "question" or answer.approve:
            return None
        if answer.expired:
            return "denied", "Not executed: nobody approved this call in time. Do not try to reach the same otherwise."
        reason = f" They said: {answer.comment}" if answer.comment else ""
        return "denied", f"Not executed: a person denied this call. Do not try to reach the same otherwise.{reason}"

    async def _answer(self, judged: Judged, place: Place) -> CallRecord:
        """Journal the answer of a person as the result of `ask_user`."""
        answer = self._answers[cast("OpenRequest", judged.request).id]
        text = "Nobody answered in time. Go on as seems best." if answer.expired else f"Answer: {answer.input}"

        async def record() -> CallRecord:
            return CallRecord(
                tool=judged.call.name, status="succeeded", text=text, step=place.step, started_ms=now_ms()
            )

        return await self._state.context.once(tool_key(place.n, place.index), CallRecord, record)

    async def _call(self, judged: Judged, place: Place) -> CallRecord:
        """Call a tool. If an earlier worker was lost during the call, a person decides whether it is repeated."""
        context, times = self._state.context, 0
        tool, args = self._state.tools[judged.call.name], judged.args
        assert args is not None  # noqa: S101 - only refused calls lack them
        while True:
            key = repeat_key(place.n, place.index, times)
            if not context.knows(key):
                try:
                    return await call_tool(context, tool, args, place, times=times)
                except CallInterrupted:
                    pass
            request = self._repeat_request(judged, key)
            given = context.run.answers.get(request.id)
            # Not journaled: a retry of the run makes the call again.
            if given and _decision(given) == "fail":
                message = f"the worker was lost while the tool '{tool.name}' was running; a person ended the run"
                error = RunError(code="interrupted", message=message, step=place.step)
                raise await self._state.failure(error, self._turn)
            answer = (await ask(context, key, [request]))[request.id]
            if _decision(answer) != "repeat":
                text = f"The worker was lost during this call; nobody knows what it did. A person said: {answer.input}"
                return await refuse(context, judged, place, "interrupted", text)
            times += 1

    def _repeat_request(self, judged: Judged, key: str) -> OpenRequest:
        args = msgspec.to_builtins(judged.args)
        return OpenRequest(
            id=request_id(self._state.context.run.id, key, judged.call.name, args),
            kind="question",
            question="The worker was lost while this call was under way, and nobody knows what the call did. Shall it "
            "be repeated or skipped, or shall the run fail?",
            expires_ms=now_ms() + LONGEST_EXPIRY_MS,
            on_expiry="fail",
            tool=judged.call.name,
            args=args,
            choices=_CHOICES,
        )


def _decision(answer: StoredAnswer) -> Literal["repeat", "skip", "fail"]:
    """Return the decision of a person. Any other text is a hint to the model, which continues without the call."""
    text = (answer.input or "").strip().lower()
    return "repeat" if text == "repeat" else "fail" if text == "fail" else "skip"
