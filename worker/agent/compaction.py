"""Conversation that fits into the context of a model: summaries of earlier turns, and shortened texts.

The conversation is built in the order of the turns, as it grew. A text that was shortened for one exchange has the same
form for the next, so that providers can cache the conversation.

1. Above three quarters of the context, a summary is due. It replaces all turns but the last ones, which fill a quarter.
2. A conversation that does not fit all the same is shortened to three quarters of the context. First, outputs and
   arguments of earlier turns are cut, oldest first; then the last turn is cut, as little as needed; then earlier turns
   are left out, oldest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from infra.contract.llm import BYTES_PER_TOKEN, ChatMessage
from infra.contract.requests import UserMessage
from worker.agent import limits, prompts
from worker.agent.entries import Setup, Turn
from worker.agent.progress import Progress, step_results
from worker.agent.rendering import EMPTY, Rendered, cut, inbox, rendered, user

REPEATS_NOTICE = 3
"""Number of identical calls in a row from which on the model is told so."""
PAUSE = 4
"""Number of exchanges after a summary in which no other one is due, whether it helped or failed."""
OLD_BYTES = 400
"""Bytes of an output, an argument or a text of an earlier turn that is shortened."""
LAST_BYTES = (8192, 2048, 512, 64)
"""Bytes of an output, an argument or a text of the last turn if it does not fit, tried in this order."""
_RESERVE = 512 + max(len(prompts.render(name).encode()) for name in ("plan", "summary"))
"""Bytes for the message that asks for a plan or a summary."""


def due(view: "View") -> int | None:
    """Return `covers` of a summary that is due now: exchanges with a smaller number are replaced by it. Else None.

    The turns from `covers` on stay whole, at least the last one. A summary that would free less than an eighth of the
    context is not due.
    """
    if any(turn.exchange.purpose == "summary" for turn in view.turns[-PAUSE:]):
        return None
    if view.size <= view.space * 3 // 4 or not view.shown:
        return None
    covers, room = view.shown[-1].n, view.space // 4 - view.shown[-1].content.size
    for each in reversed(view.shown[:-1]):
        room -= each.content.size
        if room < 0:
            break
        covers = each.n
    freed = sum(each.content.size for each in view.shown if each.n < covers)
    return covers if freed >= max(1, view.space // 8) else None


@dataclass
class Shown:
    """Part of the conversation: a turn, or messages of people. `render` makes it for a number of bytes of its texts."""

    n: int
    render: Callable[[int | None], Rendered]
    content: Rendered
    limit: int | None = None


@dataclass
class View:
    """Conversation under construction. `space`: bytes that fit; `size`: bytes used, with a reserve for what follows.

    `turns`: all, also those that are not shown. `earlier`: a message in place of turns that are not shown.
    """

    turns: Sequence[Turn]
    marker: str
    space: int
    opening: Rendered
    size: int
    earlier: Rendered = EMPTY
    shown: list[Shown] = field(default_factory=list)

    @classmethod
    def of(cls, setup: Setup, turns: Sequence[Turn]) -> "View":
        """Build the conversation of turns."""
        opening = Rendered.of([ChatMessage(role="system", text=setup.system), user(setup.task)])
        view = cls(turns, setup.marker, setup.context_tokens * BYTES_PER_TOKEN, opening, opening.size + _RESERVE)
        notices: dict[int, list[tuple[int, int]]] = {}
        for n, index, _, count in limits.repetitions(turns):
            if count >= REPEATS_NOTICE:
                notices.setdefault(n, []).append((index, count))
        progress = Progress()
        for turn in turns:
            if turn.exchange.is_summary:
                view._cover(turn, _plan_text(progress))
            view._append(turn.n, partial(rendered, turn, view.marker, notices.get(turn.n, ())))
            for record in turn.records:
                progress = progress.after(record)
        return view

    def add(self, unread: Sequence[UserMessage]) -> None:
        """Append messages of people that came after the turns."""
        if unread:
            self._append(self.shown[-1].n + 1 if self.shown else 0, partial(_inbox, unread))

    def messages(self) -> list[ChatMessage]:
        """Return the messages, without one that asks for something."""
        shown = (message for each in self.shown for message in each.content.messages)
        return [*self.opening.messages, *self.earlier.messages, *shown]

    def _cover(self, turn: Turn, plan: str) -> None:
        """Put a summary in place of what it covers."""
        self._drop(sum(each.n < min(turn.exchange.covers, turn.n) for each in self.shown))
        # A quarter of the context, or less where the task leaves less than half of it.
        longest = max(OLD_BYTES, min(self.space // 4, (self.space - self.opening.size) // 2))
        summary = cut(turn.exchange.text, longest)
        self._replace_earlier(prompts.render("earlier", summary=summary, plan=cut(plan, longest // 4)))

    def _append(self, n: int, render: Callable[[int | None], Rendered]) -> None:
        last = Shown(n, render, render(None))
        self.shown.append(last)
        self.size += last.content.size
        if self.size <= self.space:
            return
        target = self.space * 3 // 4
        for each in self.shown[:-1]:
            if self.size <= target:
                return
            self._shorten(each, OLD_BYTES)
        for limit in LAST_BYTES:
            if self.size <= self.space:
                return
            self._shorten(last, limit)
        if self.size > self.space and len(self.shown) > 1:
            if not self.earlier.messages:
                self._replace_earlier(prompts.render("dropped"))
            while self.size > target and len(self.shown) > 1:
                self._drop(1)

    def _shorten(self, each: Shown, limit: int) -> None:
        if each.limit is not None and each.limit <= limit:
            return
        content = each.render(limit)
        if content.size < each.content.size:
            self.size += content.size - each.content.size
            each.content, each.limit = content, limit

    def _drop(self, count: int) -> None:
        self.size -= sum(each.content.size for each in self.shown[:count])
        del self.shown[:count]

    def _replace_earlier(self, text: str) -> None:
        earlier = Rendered.of([user(text)])
        self.size += earlier.size - self.earlier.size
        self.earlier = earlier


def _plan_text(progress: Progress) -> str:
    """Return the steps of the current plan, one a line, with the outcomes of those that are done.

    A summary replaces the calls that made the plan, and a model may forget a step in it.
    """
    steps = step_results(progress)
    lines = (
        f"{n}. {step['goal']}{' – done: ' if step['outcome'] else ''}{step['outcome']}"
        for n, step in enumerate(steps, 1)
    )
    return "\n".join(lines)


def _inbox(messages: Sequence[UserMessage], limit: int | None) -> Rendered:
    return Rendered.of(inbox(messages, limit))
