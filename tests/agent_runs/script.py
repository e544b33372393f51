"""Scripted models: endpoints whose replies depend on the conversation alone, so that a repeated request gets the same
reply again."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.support.model_server.answers import call, streamed, whole
from tests.support.scripted_http import Answer, Request


@dataclass(frozen=True)
class Conversation:
    """Messages of a request, and the tools that it offers."""

    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def replies(self) -> int:
        """Number of replies so far."""
        return sum(message["role"] == "assistant" for message in self.messages)

    @property
    def last(self) -> str:
        """Text of the last message."""
        return str(self.messages[-1]["content"])

    @property
    def results(self) -> list[str]:
        """Results of the calls of the last reply."""
        found: list[str] = []
        for message in reversed(self.messages):
            if message["role"] == "assistant":
                break
            if message["role"] == "tool":
                found.insert(0, str(message["content"]))
        return found

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body.get("tools", ())]


Call: TypeAlias = tuple[str, dict[str, Any]]
Say: TypeAlias = str | Call | Sequence[Call] | Answer
"""Reply: a text, one call, several calls, or the bytes of an answer."""
Step: TypeAlias = Say | Callable[[Conversation], Say]


@dataclass
class Script:
    """Replies by their number in the conversation. `asked` counts the requests for each of them."""

    steps: Sequence[Step]
    streams: bool = True
    asked: Counter[int] = field(default_factory=Counter)
    seen: list[Conversation] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer:
        conversation = Conversation(request.json)
        number = conversation.replies
        self.asked[number] += 1
        self.seen.append(conversation)
        step = self.steps[number] if number < len(self.steps) else "I have nothing more to say."
        said = step(conversation) if callable(step) and not _is_answer(step) else step  # type: ignore[arg-type]
        return answer_of(said, conversation)


class Gate:
    """Step that replies with `step` once `open` is called; `reached` is set as soon as a request came."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._open = threading.Event()
        self._reached = threading.Event()

    def __call__(self, chat: Conversation) -> Say:
        self._reached.set()
        assert self._open.wait(30)
        return self._step(chat) if callable(self._step) and not _is_answer(self._step) else self._step  # type: ignore[arg-type,return-value]

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> bool:
        return self._reached.is_set()


def _is_answer(step: Any) -> bool:
    """Answers are functions too; those of this package take a parameter named `wire`, or are named in `answers`."""
    code = getattr(step, "__code__", None)
    return code is not None and code.co_varnames[:1] in {("wire",), ("_",)}


def answer_of(said: Any, conversation: Conversation) -> Answer:
    """Return the answer for a reply, streamed if it was asked for."""
    if callable(said):
        return said  # type: ignore[no-any-return]
    make = streamed if conversation.body.get("stream") else whole
    if isinstance(said, str):
        return make(said)
    calls = [said] if isinstance(said, tuple) else said
    made = [call(f"call_{index}", name, json.dumps(args)) for index, (name, args) in enumerate(calls)]
    return make("", calls=made)


def plan(*goals: str, tools: Sequence[str] = ()) -> Call:
    """Return a plan of steps with these goals."""
    return "plan", {"steps": [{"goal": goal, "tools": list(tools)} for goal in goals]}


def finish(summary: str = "Done.", **more: Any) -> Call:
    """Return the call that ends a run."""
    return "finish", {"summary": summary, **more}
