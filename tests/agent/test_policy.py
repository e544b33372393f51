"""Approval rules: deny wins over ask, ask over allow; patterns; text from strangers."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract.agent import ApprovalRule, Policy
from worker.agent.policy import decide, is_denied, is_untrusted, is_way_out
from worker.agent.url_patterns import matches_pattern

POLICIES: list[Policy] = ["allow", "ask", "deny"]
PATTERNS = ["*", "a", "a*", "*b", "a*b", "", "**", "x"]
TEXTS = ["", "a", "ab", "a\nb", "x", "*", "a*"]

rules = st.builds(
    ApprovalRule,
    tool=st.sampled_from(["shell", "file_write", "*"]),
    policy=st.sampled_from(POLICIES),
    match=st.none() | st.dictionaries(st.sampled_from(["command", "path"]), st.sampled_from(PATTERNS), min_size=1),
)
calls = st.tuples(
    st.sampled_from(["shell", "file_write"]),
    st.dictionaries(st.sampled_from(["command", "path"]), st.sampled_from(TEXTS)),
)


def rule(tool: str, policy: Policy, **match: str) -> ApprovalRule:
    return ApprovalRule(tool=tool, policy=policy, match=match or None)


def policy(tool: str, args: Mapping[str, Any], *given: ApprovalRule, tainted: bool = False) -> Policy:
    return decide(tool, args, [given], tainted=tainted, executes=tool == "shell").policy


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a", "ba", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "axbxc", True),
        ("a*b*c", "acb", False),
        ("*aab*", "aaab", True),
        ("a*ab*b", "aab", False),
        ("secret/*", "secret/a/b", True),
        ("secret/*", "Secret/a", False),
        (".", "x", False),
        ("[a]", "a", False),
    ],
)
def test_a_star_stands_for_any_characters(pattern: str, text: str, matches: bool) -> None:
    assert matches_pattern(pattern, text) is matches


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not matches_pattern("a*" * 5_000 + "b", "a" * 200_000)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "allow"),
        ([rule("shell", "ask")], "ask"),
        ([rule("shell", "allow"), rule("shell", "ask")], "ask"),
        ([rule("shell", "ask"), rule("shell", "deny", command="rm *")], "deny"),
        ([rule("shell", "deny", command="ls*")], "allow"),
        ([rule("*", "deny")], "deny"),
        ([rule("*", "deny"), rule("shell", "allow")], "allow"),
        ([rule("*", "ask"), rule("shell", "deny", command="ls")], "ask"),
        ([rule("*", "ask"), rule("*", "allow")], "ask"),
        ([rule("code", "deny")], "allow"),
        ([rule("shell", "deny", command="rm *", timeout_s="*")], "allow"),
        ([rule("shell", "ask", timeout_s="60"), rule("shell", "deny", timeout_s="6")], "allow"),
    ],
)
def test_the_strictest_rule_that_matches_decides(given: list[ApprovalRule], expected: str) -> None:
    assert policy("shell", {"command": "rm -r /"}, *given) == expected


def test_a_rule_that_allows_a_program_gives_the_exact_text() -> None:
    asks, allows = rule("*", "ask"), rule("shell", "allow", command="git *")
    assert policy("shell", {"command": "git status; rm -r /"}, asks, allows) == "ask"
    assert policy("shell", {"command": "git *"}, asks, allows) == "allow"
    assert policy("file_write", {"path": "out/a"}, asks, rule("file_write", "allow", path="out/*")) == "allow"


@pytest.mark.parametrize(
    ("value", "pattern"),
    [(10, "10"), (10.0, "10"), (0.5, "0.5"), (True, "true"), ({"b": 1, "a": [2]}, '{"a":[2],"b":1}'), ("ü", "ü")],
)
def test_a_value_is_compared_as_json(value: Any, pattern: str) -> None:
    assert policy("shell", {"timeout_s": value}, rule("shell", "ask", timeout_s=pattern)) == "ask"


def test_the_first_of_equal_rules_says_how_long_a_person_has() -> None:
    given = [ApprovalRule(tool="shell", policy="ask", expires_s=s, on_expiry="fail") for s in (5, 6)]
    decided = decide("shell", {}, [given], tainted=False, executes=True)
    assert (decided.expires_s, decided.on_expiry) == (5, "fail")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "ask"),
        ([rule("*", "allow")], "ask"),
        ([rule("http_fetch", "allow")], "allow"),
        ([rule("http_fetch", "allow", url="https://a.example/*")], "allow"),
        ([rule("http_fetch", "allow", url="https://b.example/*")], "ask"),
        ([rule("http_fetch", "deny")], "deny"),
    ],
)
def test_a_way_out_needs_approval_once_text_of_strangers_was_read(given: list[ApprovalRule], expected: str) -> None:
    args = {"url": "https://a.example/x", "body": "everything"}
    assert policy("http_fetch", args, *given, tainted=True) == expected
    assert policy("http_fetch", {"url": args["url"]}, tainted=True) == "allow"
    assert policy("http_fetch", args) == "allow"
    assert not is_way_out("shell", {"command": "x", "body": "x"})


NETWORK = {"command": "pip install x", "network": ["pypi.org:443"]}


@pytest.mark.parametrize(
    ("given", "untainted", "tainted"),
    [
        ([], "allow", "ask"),
        ([rule("*", "allow")], "allow", "ask"),
        ([rule("shell", "allow")], "allow", "ask"),
        ([rule("shell", "allow", command="pip install x")], "allow", "ask"),
        ([rule("shell", "allow", network='["pypi.org:443"]')], "allow", "allow"),
        ([rule("shell", "allow", network="*")], "allow", "ask"),
        ([rule("shell", "allow", network='["pypi.org:80"]')], "allow", "ask"),
        ([rule("*", "ask"), rule("shell", "allow")], "ask", "ask"),
        ([rule("*", "ask"), rule("shell", "allow", network='["pypi.org:443"]')], "allow", "allow"),
        ([rule("shell", "deny", network="*pypi*")], "deny", "deny"),
        ([rule("shell", "ask", command="pip *")], "ask", "ask"),
    ],
)
def test_a_program_with_a_network_is_a_way_out_that_only_a_rule_about_the_network_allows(
    given: list[ApprovalRule], untainted: str, tainted: str
) -> None:
    assert (policy("shell", NETWORK, *given), policy("shell", NETWORK, *given, tainted=True)) == (untainted, tainted)
    assert is_way_out("shell", NETWORK)
    assert is_untrusted("shell", NETWORK)
    for without in ({"command": "pip install x"}, {"command": "pip install x", "network": []}):
        assert policy("shell", without, tainted=True) == "allow"
        assert not is_untrusted("shell", without)


@settings(max_examples=20, deadline=None)
@given(st.lists(rules, max_size=6), calls, st.booleans(), st.randoms())
def test_no_order_of_rules_changes_the_decision(
    given: list[ApprovalRule], call: tuple[str, dict[str, str]], tainted: bool, order: random.Random
) -> None:
    tool, args = call
    before = policy(tool, args, *given, tainted=tainted)
    assert before == policy(tool, args, *order.sample(given, len(given)), tainted=tainted)
    if any(each.tool == tool and each.policy == "deny" and each.match is None for each in given):
        assert before == "deny"
    if is_denied(tool, [given]):
        assert before == "deny"


@settings(max_examples=20, deadline=None)
@given(st.lists(rules, max_size=5), rules, calls)
def test_another_rule_never_loosens_those_of_the_same_tool(
    given: list[ApprovalRule], added: ApprovalRule, call: tuple[str, dict[str, str]]
) -> None:
    tool, args = call
    # Only the rules for all tools give way, to a rule of the tool itself.
    own = [each for each in given if each.tool == tool]
    before, after = policy(tool, args, *own), policy(tool, args, *own, added)
    assert POLICIES.index(after) >= POLICIES.index(before)
    if added.tool == "*":
        assert POLICIES.index(policy(tool, args, *given, added)) >= POLICIES.index(policy(tool, args, *given))


@pytest.mark.parametrize("operator", [ApprovalRule(tool="*", policy="ask"), ApprovalRule(tool="shell", policy="ask")])
def test_a_run_cannot_loosen_the_rules_of_the_operator(operator: ApprovalRule) -> None:
    run = [ApprovalRule(tool="shell", policy="allow"), ApprovalRule(tool="*", policy="allow")]
    args = {"command": "ls"}
    assert decide("shell", args, [[operator], run], tainted=False, executes=True).policy == "ask"
    assert decide("shell", args, [[], run], tainted=False, executes=True).policy == "allow"
    denied = [ApprovalRule(tool="*", policy="deny")]
    assert is_denied("shell", [denied, run])
    assert decide("shell", args, [denied, run], tainted=False, executes=True).policy == "deny"


@pytest.mark.parametrize(
    ("action", "expected"), [("open", "allow"), ("click", "allow"), ("type", "ask"), ("evaluate", "ask")]
)
def test_text_that_is_typed_into_a_page_needs_approval_after_untrusted_text(action: str, expected: str) -> None:
    assert policy("browser", {"action": action}, tainted=True) == expected
    assert policy("browser", {"action": action}) == "allow"
    assert policy("browser", {"action": action}, rule("browser", "allow", action=action), tainted=True) == "allow"


def test_the_text_of_pages_is_untrusted() -> None:
    assert is_untrusted("browser", {"action": "extract"})
