"""Replies with calls, and their judgement."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from infra.contract.agent import ApprovalRule, Limits
from infra.contract.llm import Call, Usage
from infra.contract.tools import TOOLS
from worker.agent.calls import Judged, judge
from worker.agent.entries import CallRecord, Exchange, Purpose, Setup, Turn
from worker.agent.schemas import tool_specs

RUN = "run_1"


def setup(rules: Sequence[ApprovalRule] = (), **changes: Any) -> Setup:
    """Return what a run was begun with, with all tools that its rules do not deny."""
    return Setup(
        **{
            "system": "",
            "task": "",
            "prompts": "",
            "tools": tool_specs(TOOLS, [rules]),
            "models": [],
            "approvals": [rules],
            "limits": Limits(),
            "marker": "output-5d1c",
            "context_tokens": 1000,
            "output_tokens": 1000,
            **changes,
        }
    )


def exchange(calls: Sequence[tuple[str, Any]], purpose: Purpose = "turn") -> Exchange:
    """Return a reply with calls, all with the same id; arguments that are no text are encoded."""
    made = [
        Call(id="same", name=name, arguments=args if isinstance(args, str) else json.dumps(args))
        for name, args in calls
    ]
    return Exchange(purpose=purpose, text="", model="m", usage=Usage(), at_ms=0, ms=0, calls=made)


def turn(*, untrusted: bool) -> Turn:
    """Return a turn whose only call has read a text."""
    record = CallRecord(tool="file_read", status="succeeded", text="", step=0, started_ms=0, untrusted=untrusted)
    return Turn(n=0, inbox=(), exchange=exchange([("file_read", {"path": "a"})]), records=[record])


def judged(
    *calls: tuple[str, Any],
    rules: Sequence[ApprovalRule] = (),
    purpose: Purpose = "turn",
    n: int = 1,
    tainted: bool = False,
    plan_tools: Collection[str] | None = None,
    **changes: Any,
) -> list[Judged]:
    """Judge the calls of one reply."""
    return judge(RUN, n, exchange(calls, purpose), setup(rules, **changes), plan_tools, tainted=tainted)


def only(call: tuple[str, Any], **changes: Any) -> Judged:
    """Judge a reply with a single call."""
    (one,) = judged(call, **changes)
    return one
