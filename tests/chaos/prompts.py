"""Runs with a prompt: the replies of their model, which depend on the conversation alone, and how each must end."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.agent_runs.script import Call, Conversation, Say, Step, answer_of, finish, plan
from tests.chaos.plans import CHAIN_FILE, Kind, effect, link
from tests.support.scripted_http import Answer

ANSWER = "blue"
"""Answer of the load to each question."""
STEPS = 2
"""Steps of each model's plan."""
_JOB = re.compile(r"Do the job '([a-z ]+)'\.")


@dataclass(frozen=True)
class Job:
    """Replies of a model by their number in the conversation, and what they lead to.

    `calls`: executed calls of tools. `effects`: those that record their execution. `files`: the whole workspace.
    `requests`: questions to people. `result`: files that the result names.
    """

    replies: Sequence[Step]
    calls: int
    effects: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    requests: int = 0
    result: Sequence[str] = ()


def _call(step: Mapping[str, object]) -> Call:
    return str(step["tool"]), dict(step["args"])  # type: ignore[call-overload]


def _write(path: str, content: str) -> Call:
    return "file_write", {"path": path, "content": content}


def _keep_answer(chat: Conversation) -> Say:
    return _write("answer.txt", chat.results[-1])


_PLAN = plan("Write the chain", "Write the report")
_DONE = ("step_done", {"outcome": "It is written."})
_END = finish("Done.", files=[CHAIN_FILE, "report.txt"])

_WRITING = Job(
    replies=[
        _PLAN,
        [_call(effect(0)), _call(link(0))],
        _call(link(1)),
        [_call(effect(1, 0.3)), _call(link(2)), _DONE],
        _write("report.txt", "the first version"),
        _call(effect(2, 0.3)),
        _write("report.txt", "the report\n"),
        _END,
    ],
    calls=8,
    effects=3,
    files={CHAIN_FILE: b"0\n1\n2\n", "report.txt": b"the report\n"},
    result=[CHAIN_FILE, "report.txt"],
)
_ASKING = Job(
    replies=[
        _PLAN,
        [_call(effect(0)), ("ask_user", {"question": "Which colour?", "choices": ["red", ANSWER]})],
        _keep_answer,
        [_call(link(0)), _DONE],
        [_call(effect(1)), _write("report.txt", "the report\n")],
        _END,
    ],
    calls=5,
    effects=2,
    files={CHAIN_FILE: b"0\n", "answer.txt": f"Answer: {ANSWER}".encode(), "report.txt": b"the report\n"},
    requests=2,
    result=[CHAIN_FILE, "report.txt"],
)
_ENDLESS = Job(replies=[_PLAN, _call(effect(0)), ("shell", {"command": "sleep 600"})], calls=2, effects=1)

JOBS: Mapping[str, Job] = {
    "prompt": _WRITING,
    "prompt without a stream": _WRITING,
    "prompt with people": _ASKING,
    "prompt cancelled": _ENDLESS,
}
"""Job of each kind of runs with a prompt."""
_ASK_FIRST = {"approvals": [{"tool": "shell", "policy": "ask"}]}


def _prompt(name: str, weight: int, **fields: object) -> Kind:
    made = {"prompt": f"Do the job '{name}'.", "finished": STEPS, **fields}
    return Kind(name, [], weight, **made)  # type: ignore[arg-type]


PROMPT_KINDS = (
    _prompt("prompt", 8),
    _prompt("prompt without a stream", 4, options={"stream": False}),
    _prompt("prompt with people", 7, options=_ASK_FIRST, asks=True),
    _prompt("prompt cancelled", 3, status="cancelled", cancel_s=5.0),
)


def reply(conversation: Conversation) -> Answer:
    """Return the next reply in a conversation."""
    found = _JOB.search(str(conversation.messages[1]["content"]))
    assert found
    step = JOBS[found[1]].replies[conversation.replies]
    return answer_of(step(conversation) if callable(step) else step, conversation)  # type: ignore[arg-type]
