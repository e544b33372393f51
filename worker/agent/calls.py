"""Judgement of the calls of a reply: which may be executed, which are refused and why, which a person must approve."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import msgspec

from infra.contract.agent import DEFAULT_EXPIRY_S, ApprovalRule
from infra.contract.event_sizing import fit_requests
from infra.contract.llm import Call
from infra.contract.requests import MAX_REQUESTS, OpenRequest, request_id
from infra.contract.tool_args import ToolArgs
from infra.contract.tools import TOOLS
from worker.agent import policy
from worker.agent.arguments import BadArguments, parse, texts
from worker.agent.entries import Exchange, Purpose, Setup, tool_key
from worker.agent.schemas import CONTROL, AskUserArgs, FinishArgs
from worker.agent.tool_text import named, visible
from worker.registry import REGISTRY
from worker.run.emitter import now_ms

_FINGERPRINT_HEX = 16
_OUTPUT_FILE = re.compile(r"\.run/call-\d+-\d+")


@dataclass(frozen=True)
class Judged:
    """Call `index` of a reply, judged.

    `args` are the typed arguments, None if they are invalid. `refusal` is empty if the call may be executed, once the
    answer to `request` allows it; else a text for the model that says how to do it right, and `code` is its kind:
    `invalid_call`, `unknown_tool`, `denied` or `not_planned`.
    """

    index: int
    call: Call
    args: ToolArgs | None = None
    refusal: str = ""
    code: str = ""
    request: OpenRequest | None = None


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def judge(
    run_id: str,
    n: int,
    exchange: Exchange,
    setup: Setup,
    plan_tools: Collection[str] | None,
    *,
    tainted: bool,
) -> list[Judged]:
    """Judge all calls of exchange `n`. Nothing is executed, and nothing raises.

    `plan_tools`: tools that the current step may use with `strict_plan`, else None. `tainted`: text of strangers was
    read before (`policy.is_tainted`). The judgement depends on the arguments alone, so that a worker that takes over
    judges alike, except for the time at which a request expires, which counts from now.
    """
    one = _Judge(run_id, n, exchange.purpose, setup, plan_tools, tainted=tainted)
    return _with_room(_in_sequence([one.call(index, call) for index, call in enumerate(exchange.calls)]))


def fingerprint(tool: str, args: ToolArgs | Mapping[str, Any] | None, text: str) -> str:
    """Return a short hash of a call and its result, equal for calls that are repetitions.

    The names of output files, which contain the number of the call, do not count.
    """
    named_values = [tool, msgspec.to_builtins(args), _OUTPUT_FILE.sub(".run/call", text)]
    # Escaped, because the output of a program may hold what UTF-8 cannot encode.
    encoded = json.dumps(named_values, sort_keys=True, default=str).encode()
    return hashlib.sha256(encoded).hexdigest()[:_FINGERPRINT_HEX]


@dataclass(frozen=True)
class _Judge:
    """Judge of single calls of one reply."""

    run_id: str
    n: int
    purpose: Purpose
    setup: Setup
    plan_tools: Collection[str] | None
    _: KW_ONLY
    tainted: bool

    def call(self, index: int, call: Call) -> Judged:
        """Judge a call as if it were the only one of its reply."""
        args: ToolArgs | None = None
        try:
            self._check_name(call.name)
            kind = CONTROL.get(call.name) or TOOLS[call.name]
            try:
                args, raw = parse(kind, call.arguments)
            except BadArguments as exc:
                raise _Refused("invalid_call", f"invalid call of '{call.name}': {exc}") from exc
            request_of = self._control if call.name in CONTROL else self._tool
            request = request_of(index, call, args, raw)
        except _Refused as exc:
            return Judged(index, call, args, str(exc), exc.code)
        return Judged(index, call, args, request=request)

    def _check_name(self, name: str) -> None:
        """Raise _Refused if a tool must not be called now, whatever its arguments are."""
        if self.purpose == "summary":
            raise _Refused("invalid_call", "no call is possible in a summary; answer with the summary as text")
        if self.purpose == "plan" and name != "plan":
            raise _Refused("invalid_call", "call 'plan', and nothing else: work begins once there is a plan")
        if name == "plan" and self.purpose != "plan":
            raise _Refused("invalid_call", "there is a plan; call 'replan' to ask for another one")
        if name in CONTROL:
            return
        if name in TOOLS and policy.is_denied(name, self.setup.approvals):
            raise _Refused("denied", f"the rules of this run deny the tool '{name}'; reach the goal without it")
        offered = {spec.name for spec in self.setup.tools}
        # A worker of an earlier release may lack a tool that the run was begun with.
        if name not in offered or name not in TOOLS:
            known = sorted(offered & TOOLS.keys() | CONTROL.keys() - {"plan"})
            raise _Refused(
                "unknown_tool", f"there is no tool '{named(name)}' in this run; there are {', '.join(known)}"
            )
        if self.plan_tools is not None and name not in self.plan_tools:
            planned = ", ".join(sorted(self.plan_tools)) or "none"
            raise _Refused(
                "not_planned",
                f"the plan does not name '{name}' for this step, and only planned tools may be used; for this step "
                f"it names {planned}. Call 'replan' if the step cannot be done with them",
            )

    def _control(self, index: int, call: Call, args: ToolArgs, raw: dict[str, Any]) -> OpenRequest | None:
        if isinstance(args, FinishArgs) and self.setup.output_schema is not None and "output" not in raw:
            raise _Refused("invalid_call", "invalid call of 'finish': 'output' is missing, and the task asks for one")
        if not isinstance(args, AskUserArgs):
            return None
        return OpenRequest(
            id=self._request_id(index, call, raw),
            kind="question",
            question=visible(args.question)[0],
            choices=[visible(choice)[0] for choice in args.choices],
            expires_ms=_in(DEFAULT_EXPIRY_S),
            on_expiry="deny",
        )

    def _tool(self, index: int, call: Call, args: ToolArgs, raw: dict[str, Any]) -> OpenRequest | None:
        tool, rules = call.name, self.setup.approvals
        built, executes = msgspec.to_builtins(args), REGISTRY[tool].executes
        rule = policy.decide(tool, built, rules, tainted=self.tainted, executes=executes)
        if rule.policy == "allow":
            return None
        if rule.policy == "deny":
            message = f"the rules of this run deny this call of '{tool}'{_because(rule)}; reach the goal another way"
            raise _Refused("denied", message)
        by_rule = policy.decide(tool, built, rules, tainted=False, executes=executes).policy == "ask"
        question = f"May the run call {tool}?"
        if not by_rule:
            question += " It would send data out, and the run has read text from outside, which may have misled it."
        if hidden := sum(visible(text)[1] for text in texts(raw)):
            question += f" Its arguments hold {hidden} control or invisible characters."
        return OpenRequest(
            id=self._request_id(index, call, raw),
            kind="approval",
            question=question,
            tool=tool,
            args=raw,
            expires_ms=_in(rule.expires_s),
            on_expiry=rule.on_expiry,
        )

    def _request_id(self, index: int, call: Call, raw: dict[str, Any]) -> str:
        # The arguments as given, without defaults: a new field of a tool in a later release leaves the id as it is.
        return request_id(self.run_id, tool_key(self.n, index), call.name, raw)


def _in_sequence(judged: Sequence[Judged]) -> list[Judged]:
    """Refuse control calls that make no sense beside the other calls of their reply."""
    result = []
    seen: set[str] = set()
    for one in judged:
        name = one.call.name
        problem = ""
        if not one.refusal:
            if name in {"plan", "replan", "finish"} and name in seen:
                problem = f"'{name}' was called before in the same reply; call it once"
            elif name == "finish" and seen & {"replan", "ask_user"}:
                other = "the new plan" if "replan" in seen else "the answer of the user"
                problem = f"wait for {other} before you call 'finish'"
            elif name == "finish" and any(later.call.name != "finish" for later in judged[one.index + 1 :]):
                problem = "'finish' must be the last call of a reply; call it once the other calls have succeeded"
            else:
                seen.add(name)
        result.append(_refuse(one, problem) if problem else one)
    return result


def _with_room(judged: Sequence[Judged]) -> list[Judged]:
    """Refuse the calls whose requests a person could not see whole beside those before them.

    A call that is asked alone may be too long to be shown whole; its question then says so.
    """
    asked: list[OpenRequest] = []
    result = []
    for one in judged:
        request, problem = one.request, ""
        if request is None:
            result.append(one)
            continue
        if len(asked) == MAX_REQUESTS:
            problem = f"a person is asked at most {MAX_REQUESTS} things at a time; call it again after the answers"
        elif not _fit([*asked, request]):
            if asked:
                problem = "a person is asked, and cannot see this call beside those before it; call it again later"
            elif request.kind == "question":
                size = len(msgspec.json.encode([request.question, request.choices]))
                problem = f"the question and its choices have {size} bytes; shorten them to 4000"
            else:
                size = len(msgspec.json.encode(request.args))
                note = f" Its arguments have {size} bytes as JSON and are shown only in part."
                request = msgspec.structs.replace(request, question=request.question + note)
        if problem:
            result.append(_refuse(one, problem))
        else:
            asked.append(request)
            result.append(replace(one, request=request))
    return result


def _fit(requests: Sequence[OpenRequest]) -> bool:
    """Return whether a waiting run shows these requests whole."""
    return bool(fit_requests(requests) == msgspec.to_builtins(requests))


def _refuse(one: Judged, problem: str) -> Judged:
    return replace(one, refusal=f"'{one.call.name}' was not called: {problem}", code="invalid_call", request=None)


def _because(rule: ApprovalRule) -> str:
    patterns = ", ".join(f"{name} = {named(pattern)!r}" for name, pattern in (rule.match or {}).items())
    return f" (by the rule for {patterns})" if patterns else ""


def _in(seconds: float) -> int:
    """Return the time after a number of seconds from now, in ms since the epoch."""
    return now_ms() + int(seconds * 1000)
