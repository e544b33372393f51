"""State of one claim of an agent run: its turns so far, and what they leave of its limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec
from msgspec import structs

from infra.contract.agent import Limits
from infra.contract.llm import Usage
from infra.contract.requests import UserMessage
from infra.contract.runs import MAX_TIMEOUT_S, RunError
from worker.agent.entries import FAILED, Continued, FailedExchanges, Setup, Turn, inbox_key, model_key
from worker.agent.limits import NO_FAILURES, LimitReached, Totals, effective
from worker.agent.progress import progress_of, step_results
from worker.run.context import RunContext
from worker.run.people import interrupt_answers, read_inbox
from worker.run.strategy import StepFailed
from worker.toolkit.base import Tool

MAX_PARTIAL_FILES = 200
MIN_PAUSE_MS, MAX_PAUSE_MS = 1000, 3_600_000
"""Bounds of the time for which a run is given back because its models ask for a pause."""
MAX_BUSY_MS = 24 * 3_600_000
"""Longest time, all pauses together, for which a run waits for one reply of busy models."""


@dataclass
class AgentState:
    """State of one claim.

    `caps`: limits of the configuration. `draining`: see Strategy. `turns` are complete. `continued`: conversation
    that comes before them. `failed`: exchanges without a reply, of all claims. `heard`: fence of the last claim whose
    interrupt the turns have the answer to.
    """

    context: RunContext
    setup: Setup
    caps: Limits
    tools: Mapping[str, Tool]
    draining: Callable[[], bool]
    continued: Continued = field(default_factory=Continued)
    turns: list[Turn] = field(default_factory=list)
    failed: FailedExchanges = NO_FAILURES
    heard: int = 0

    @property
    def n(self) -> int:
        """Number of the next exchange."""
        before = self.continued.turns
        return len(self.turns) + (before[-1].n + 1 if before else 0)

    @property
    def conversation(self) -> list[Turn]:
        """Turns of the conversation, after the turns of the run that is continued."""
        return [*self.continued.turns, *self.turns]

    @property
    def limits(self) -> Limits:
        """Limits that hold now: the limits of the setup, or the limits that a retry has set."""
        retried = self.context.run.limits
        return effective(retried, self.caps) if retried else self.setup.limits

    @property
    def is_interrupted(self) -> bool:
        """True once a person has answered an interrupt, until the answer is read."""
        return bool(interrupt_answers(self.context.run, self.heard))

    def totals(self, turn: Turn | None = None) -> Totals:
        """Return what the run has used; `turn`: one under way, to be added."""
        return Totals.of([*self.turns, turn] if turn else self.turns, self.failed)

    def note_failure(self, usage: Usage, ms: int) -> None:
        """Add an exchange without a reply to what the run has used."""
        self._note(structs.replace(self.failed, usage=self.failed.usage + usage, ms=self.failed.ms + ms))

    def pause_ms(self, asked_ms: int) -> int | None:
        """Return the pause after which busy models are asked again, and note it; None if they were busy for too long.

        It grows, because an endpoint that asks for one second each time would be asked for a day.
        """
        before_ms = self.failed.busy_ms if self.failed.n == self.n else 0
        pause_ms = min(MAX_PAUSE_MS, max(MIN_PAUSE_MS, asked_ms, before_ms // 8))
        busy_ms = before_ms + pause_ms
        is_over = busy_ms > MAX_BUSY_MS
        # After its failure a retry of the run may wait as long again.
        self._note(structs.replace(self.failed, n=self.n, busy_ms=0 if is_over else busy_ms))
        return None if is_over else pause_ms

    def _note(self, failed: FailedExchanges) -> None:
        self.failed = failed
        self.context.note(FAILED, failed)

    def seconds_left(self, totals: Totals) -> float:
        """Return the seconds that the next call may take."""
        return max(0.0, (self.limits.wall_s or MAX_TIMEOUT_S) - totals.wall_ms / 1000)

    async def check(self, reached: LimitReached | None, turn: Turn | None = None) -> None:
        """Raise StepFailed if a limit is reached; `turn` as in `failure`."""
        if reached:
            raise await self.failure(RunError(code=reached.code, message=reached.message), turn)

    async def failure(self, error: RunError, turn: Turn | None = None) -> StepFailed:
        """Return the failure with the partial result: the last text of a model, the files, and the steps done.

        `turn`: incomplete turn after the complete ones.
        """
        files = await self.context.list_files()
        turns = [*self.turns, turn] if turn else self.turns
        texts = [each.exchange.text for each in turns if each.exchange.text and each.exchange.purpose != "summary"]
        partial = {
            "text": texts[-1] if texts else "",
            "files": [msgspec.to_builtins(file) for file in files[:MAX_PARTIAL_FILES]],
            "steps": step_results(progress_of(turns)),
        }
        return StepFailed(error, partial)

    async def hear(self) -> Sequence[UserMessage]:
        """Return the messages to the run that the next exchange is the first to read."""
        heard: list[UserMessage] = []
        # Each claim that begins the exchange, such as one after a busy model, may read further messages.
        for part in count():
            before = self._opening() if part == 0 and not self.turns else []
            inbox = await read_inbox(self.context, inbox_key(self.n, part), model_key(self.n), self.heard, before)
            if not inbox.messages:
                return heard
            heard += inbox.messages
            if inbox.interrupt is not None:
                self.heard = inbox.interrupt
        raise AssertionError("counting does not end")

    def _opening(self) -> list[UserMessage]:
        """Return the messages with which a run goes on from another one: those left unread there, and its prompt."""
        run, follow_up = self.context.run, self.setup.follow_up
        prompt = [UserMessage(text=follow_up, by=run.user, at_ms=run.created_ms)] if follow_up else []
        return [*self.continued.unread, *prompt]
