"""Messages of a request to a model, computed from the setup and the turns of a run."""

from collections.abc import Sequence

import msgspec

from infra.contract.llm import ChatMessage, ToolSpec
from infra.contract.requests import UserMessage
from worker.agent import prompts
from worker.agent.compaction import View
from worker.agent.entries import Purpose
from worker.agent.rendering import message_size, user

_TOOL_BYTES = 64


def messages(view: View, *, for_purpose: Purpose, unread: Sequence[UserMessage] = ()) -> list[ChatMessage]:
    """Return the conversation of a view up to the next exchange, whose purpose this is.

    `unread`: the messages of people that come before this exchange (`Turn.inbox` of the turn that it becomes); they are
    added to the view. The conversation begins with the system prompt and the task, has each call followed by its
    result, and fits into `setup.context_tokens` by estimate, unless the prompt, the task and the last turn alone do
    not.
    """
    view.add(unread)
    made = view.messages()
    if for_purpose != "turn":
        made.append(user(prompts.render(for_purpose)))
    return made


def request_size(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()) -> int:
    """Return the bytes of a request with these messages and tools, or a few more."""
    tool_bytes = sum(len(msgspec.json.encode(tool)) + _TOOL_BYTES for tool in tools)
    return sum(message_size(message) for message in messages) + tool_bytes
