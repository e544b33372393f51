"""Journal entries of an agent run, and the turns of a conversation, which are made of them.

| entry | value |
|---|---|
| `continued` | Continued: conversation of the run that this run continues |
| `setup` | Setup: everything that the run was begun with |
| `inbox:{n}` | Inbox: messages that were read before exchange `n` |
| `inbox:{n}:{k}` | the same for messages that came after the claim which wrote the one before, from `k` = 1 on |
| `model:{n}` | Exchange `n` with models, counted from 0 |
| `asked:{n}` | answers of people that the calls of exchange `n` needed |
| `tool:{n}:{i}` | CallRecord of call `i` of exchange `n`, counted from 0 |
| `failed` | FailedExchanges: what the exchanges have used that ended without a reply |
| `tool:{n}:{i}:repeat:{k}` | answer of a person to the question whether to repeat an interrupted call |

Keys are positions, because some servers use the id of a call twice. A resumed run continues after its last entry:
everything that its agent knows (the conversation, the plan, what its limits have left) is computed from these entries.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from infra.contract.agent import ApprovalRule, Limits
from infra.contract.journal import CallOutcome
from infra.contract.llm import Call, ModelChoice, ToolSpec, Usage
from infra.contract.requests import UserMessage

SETUP = "setup"
FAILED = "failed"
Purpose: TypeAlias = Literal["plan", "turn", "summary"]


class Setup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a run was begun with; a resumed run uses it, whatever the configuration has become.

    `system` is the rendered system prompt, `task` the rendered first message, with the prompt and the list of files.
    A run that continues another one has the `task` of the other run, and `follow_up` after its turns. `prompts`:
    version of the templates. `tools` are offered to models in this order. `approvals`: rules of the
    configuration, and rules of the run. `limits` has no None except for `cost`. `marker` fences the output of tools.
    `context_tokens`: tokens that the messages of a request may have. `output_tokens`: tokens of a reply.
    """

    system: str
    task: str
    prompts: str
    tools: Sequence[ToolSpec]
    models: Sequence[ModelChoice]
    approvals: Sequence[Sequence[ApprovalRule]]
    limits: Limits
    marker: str
    context_tokens: int
    output_tokens: int
    follow_up: str = ""
    output_schema: Mapping[str, Any] | None = None
    strict_plan: bool = False
    stream: bool = True


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply of a model, or its failure to give a usable one.

    `usage` includes the tokens of tries that failed. `problem`: why the reply cannot be used, for the model to read;
    its text and calls are left out then. `covers`, of a summary: exchanges with a smaller number are replaced by its
    text. `opaque`: model → fields that only this model understands. Times are in ms, `at_ms` since the epoch.
    """

    purpose: Purpose
    text: str
    model: str
    usage: Usage
    at_ms: int
    ms: int
    calls: Sequence[Call] = ()
    served: str = ""
    tries: int = 1
    problem: str = ""
    covers: int = 0
    opaque: Mapping[str, Any] = {}

    @property
    def is_summary(self) -> bool:
        """True for a summary that stands for the exchanges before `covers`; False for one that failed or is empty."""
        return self.purpose == "summary" and bool(self.text.strip()) and not self.problem


class FailedExchanges(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the exchanges of a run that ended without a reply. `ms`: their duration.

    `busy_ms`: delays for which the run was given back because its models were busy, all before exchange `n`.
    """

    usage: Usage = Usage()
    ms: int = 0
    n: int = 0
    busy_ms: int = 0


class GoalStep(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """Step of a model's plan: its goal, the result that shows that the goal is reached, and the tools that it needs."""

    goal: Annotated[str, Meta(min_length=1, max_length=2000, description="What is to be reached.")]
    expected: Annotated[str, Meta(max_length=2000, description="Result that shows that it is reached.")] = ""
    tools: Annotated[
        Sequence[Annotated[str, Meta(max_length=64)]],
        Meta(max_length=64, description="Names of the tools that it needs."),
    ] = ()


class CallRecord(CallOutcome, frozen=True, kw_only=True, omit_defaults=True):
    """Outcome of one call as the agent keeps it; `text` is what the model reads, without fence.

    `untrusted`: the text is not from this workspace alone, and may hold instructions of strangers. `fingerprint`: short
    hash of the tool, its arguments and its result, equal for calls that are repetitions.
    """

    untrusted: bool = False
    fingerprint: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """Exchange `n` with what belongs to it. `inbox` came before it; `records[i]` answers `exchange.calls[i]`.

    Only the last turn of a run may have fewer records than calls.
    """

    n: int
    inbox: Sequence[UserMessage]
    exchange: Exchange
    records: Sequence[CallRecord] = ()


class Continued(msgspec.Struct, frozen=True, kw_only=True):
    """Conversation that a run continues: its first message, and its turns. Empty after a run without an agent.

    `unread`: messages that no exchange has read. `untrusted`: text of strangers was read, in these turns or before
    them.
    """

    task: str = ""
    turns: Sequence[Turn] = ()
    unread: Sequence[UserMessage] = ()
    untrusted: bool = False


def inbox_key(n: int, part: int = 0) -> str:
    """Key of the messages that were read before an exchange, in one or several parts."""
    return f"inbox:{n}:{part}" if part else f"inbox:{n}"


def model_key(n: int) -> str:
    """Key of an exchange."""
    return f"model:{n}"


def asked_key(n: int) -> str:
    """Key of the answers of people that the calls of an exchange needed."""
    return f"asked:{n}"


def tool_key(n: int, index: int) -> str:
    """Key of the outcome of a call."""
    return f"tool:{n}:{index}"


def repeat_key(n: int, index: int, times: int) -> str:
    """Key of the answer whether a call is repeated that was interrupted `times` times before."""
    return f"tool:{n}:{index}:repeat:{times}"
