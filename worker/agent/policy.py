"""Decision about a call by approval rules: `deny` wins over `ask`, and `ask` over `allow`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from infra.contract.agent import ANY_TOOL, ApprovalRule
from worker.agent.entries import Turn
from worker.agent.url_patterns import matches_pattern, matches_url, one_network

RuleLists: TypeAlias = Sequence[Sequence[ApprovalRule]]
"""Rules of the operator, and rules of the run. A list cannot loosen what another one decides."""
UNTRUSTED_TOOLS = frozenset({"browser", "http_fetch"})
"""Tools whose results may hold the instructions of strangers."""
NETWORK = "network"
URL = "url"
_ORDER = {"deny": 0, "ask": 1, "allow": 2}


def decide(tool: str, args: Mapping[str, Any], rules: RuleLists, *, tainted: bool, executes: bool) -> ApprovalRule:
    """Return the rule that decides about a call: the first of the strictest ones, over all lists.

    `args` are the validated arguments as built-in values, defaults included. `executes`: the tool runs a program, so
    that a pattern which allows is an exact text, and that a rule allows a call with a network only if it has a pattern
    for `network`. Without a matching rule a call is allowed. `tainted`: untrusted text was read; a call with a way out
    then needs approval, unless a rule that names the tool allows it.
    """
    matching: list[ApprovalRule] = []
    for some in rules:
        fitting = [rule for rule in some if _matches(rule, args, executes=executes)]
        # Within a list, rules of the tool itself override rules for all tools. Between lists, nothing is overridden.
        own = [rule for rule in fitting if rule.tool == tool]
        matching += own or [rule for rule in fitting if rule.tool == ANY_TOOL]
    strictest = min(matching, key=lambda rule: _ORDER[rule.policy], default=ApprovalRule(tool=ANY_TOOL, policy="allow"))
    is_named = any(rule.tool == tool for rule in matching)
    if strictest.policy == "allow" and not is_named and tainted and is_way_out(tool, args):
        return ApprovalRule(tool=tool, policy="ask")
    return strictest


def is_denied(tool: str, rules: RuleLists) -> bool:
    """Return whether a list of rules denies every call of a tool, so that it need not be offered."""
    return any(_denies(tool, some) for some in rules)


def _denies(tool: str, rules: Sequence[ApprovalRule]) -> bool:
    own = [rule for rule in rules if rule.tool == tool]
    if any(rule.policy == "deny" and rule.match is None for rule in own):
        return True
    others = any(rule.tool == ANY_TOOL and rule.policy == "deny" and rule.match is None for rule in rules)
    return others and all(rule.policy == "deny" for rule in own)


def is_tainted(turns: Sequence[Turn]) -> bool:
    """Return whether the conversation holds text that may be from strangers."""
    return any(record.untrusted for turn in turns for record in turn.records)


def is_way_out(tool: str, args: Mapping[str, Any]) -> bool:
    """Return whether a call can carry text out of the run: `http_fetch` with a body, a program with a network, text
    typed into a page, or a script in it."""
    in_page = tool == "browser" and args.get("action") in {"type", "evaluate"}
    return in_page or (tool == "http_fetch" and bool(args.get("body"))) or bool(args.get(NETWORK))


def is_untrusted(tool: str, args: Mapping[str, Any]) -> bool:
    """Return whether the result of a call may hold the instructions of strangers."""
    return tool in UNTRUSTED_TOOLS or bool(args.get(NETWORK))


def _matches(rule: ApprovalRule, args: Mapping[str, Any], *, executes: bool) -> bool:
    """Return whether a rule applies to a call. An argument that the call lacks matches no pattern."""
    exact = executes and rule.policy == "allow"
    # A rule that allows a program was written for one without a network, unless the rule says so.
    if exact and args.get(NETWORK) and NETWORK not in (rule.match or {}):
        return False
    for name, pattern in (rule.match or {}).items():
        value = args.get(name)
        if value is None:
            return False
        if not (_text(value) == pattern if exact else _matches_value(name, pattern, value, rule.policy == "allow")):
            return False
    return True


def _matches_value(name: str, pattern: str, value: Any, allows: bool) -> bool:
    if name == URL and isinstance(value, str):
        return matches_url(pattern, value, allows=allows)
    if name == NETWORK and not allows and matches_pattern(pattern.lower(), _text(one_network(value))):
        return True
    return matches_pattern(pattern, _text(value))


def _text(value: Any) -> str:
    """Return the text that patterns are compared with: a text itself, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a model may write 10 or 10.0
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
