"""Approval rules for URLs: no spelling gets around a rule that denies, and none into a rule that allows."""

import pytest

from infra.contract.agent import ApprovalRule, Policy
from worker.agent.policy import decide

INTERNAL = [
    "http://db.internal/x",
    "http://db.internal:80/x",
    "http://db.internal:8080/x",
    "HTTP://DB.Internal/x",
    "http://db.internal./x",
    "http://db%2Einternal/x",
    "http://d%62.internal/x",
    "http://ｄb.internal/x",
    "http://db。internal/x",
    "http://db.internal/a/..//x",
]


def policy(url: str, pattern: str, given: Policy) -> Policy:
    """Return the decision about a fetch where everything else is asked for, or allowed beside a rule that denies."""
    rules = [ApprovalRule(tool="http_fetch", policy=given, match={"url": pattern})]
    others = [ApprovalRule(tool="*", policy="ask")] if given == "allow" else []
    return decide("http_fetch", {"url": url}, [[*rules, *others]], tainted=False, executes=False).policy


@pytest.mark.parametrize("url", INTERNAL)
@pytest.mark.parametrize("pattern", ["*.internal/*", "http://db.internal/*", "*://DB.internal./*", "*db.internal*"])
def test_every_spelling_of_a_denied_host_is_denied(url: str, pattern: str) -> None:
    assert policy(url, pattern, "deny") == "deny"


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("https://a.example/admin*", "https://a.example/%61dmin"),
        ("https://a.example/admin*", "https://a.example/x/%2e%2E/./admin/1"),
        ("https://a.example/%7Eada/*", "https://a.example/~ada/x"),
        ("https://a.example/ü/*", "https://a.example/%c3%bc/x"),
        ("https://a.example:443/*", "https://a.example/"),
        ("https://a.example", "https://A.example"),
        ("https://bücher.example/*", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/*", "https://BÜCHER.example/"),
        ("http://127.0.0.1/*", "http://0x7f.1/x"),
        ("http://[::1]/*", "http://[0:0::1]/"),
        ("https://[2001:DB8::1]:8443/*", "https://[2001:db8:0::1]:8443/x"),
        ("https://straße.example/*", "https://xn--strae-oqa.example/"),
        ("https://xn--strae-oqa.example/*", "https://STRAßE.example/"),
        ("http://0x7f.1/*", "http://127.0.0.1/x"),
        ("http://[0:0::1]:8080/*", "http://[::1]:8080/"),
        ("https://a.example/Go?to=http://b.example/*", "https://a.example:443/Go?to=http://b.example/x"),
        ("https://a.example/*", "https://exa mple\udcff/"),  # a host that cannot be read
    ],
)
def test_a_rule_that_denies_applies_to_what_it_means(pattern: str, url: str) -> None:
    assert policy(url, pattern, "deny") == "deny"


@pytest.mark.parametrize(
    ("pattern", "url", "expected"),
    [
        ("https://*.example.org/*", "https://docs.example.org/a?b=c", "allow"),
        ("https://*.example.org/*", "HTTPS://docs.EXAMPLE.org:443/", "allow"),
        ("https://*.example.org/*", "https://evil.example/x.example.org/", "ask"),
        ("https://*.example.org/*", "https://evil.example/?://x.example.org/", "ask"),
        ("*.example.org/*", "https://docs.example.org/a", "allow"),
        ("*.example.org/*", "https://evil.example/x.example.org/a", "ask"),
        ("https://*example.org*", "https://evil.example/#example.org", "ask"),
        ("https://a.example/public/*", "https://a.example/public/x", "allow"),
        ("https://a.example/public/*", "https://a.example/public/%2e%2e/secret", "ask"),
        ("https://a.example/public/*", "https://a.example/public/../secret", "ask"),
        ("https://a.example/*", "https://a.example:8443/", "ask"),
        ("https://a.example:8443/*", "https://a.example:8443/x", "allow"),
        ("https://a.example:443/*", "https://a.example/x", "allow"),
        ("https://a.example", "https://a.example/", "allow"),
        ("https://a.example", "https://a.example/x", "ask"),
        ("https://a.example/*", "http://a.example/", "ask"),
        ("*", "https://a.example/", "allow"),
        ("https://*", "https://a.example/", "allow"),
        ("*/docs/*", "https://a.example/x/docs/y", "allow"),
        ("http*://a.example/*", "http://a.example/", "allow"),
        ("https://strasse.example/*", "https://straße.example/", "ask"),  # another host
        ("https://straße.example/*", "https://straße.example/", "allow"),
        ("*//a.example/*", "https://evil.example//a.example/", "ask"),
        ("https://a.example/Go?to=http://b.example/*", "https://a.example/Go?to=http://b.example/x", "allow"),
        ("*", "https://\udcff/", "ask"),
    ],
)
def test_a_rule_that_allows_is_matched_part_by_part(pattern: str, url: str, expected: Policy) -> None:
    assert policy(url, pattern, "allow") == expected


@pytest.mark.parametrize("host", ["pypi.org:443", "PyPI.org:443", "pypi.org.:443", "pypi.org:0443"])
def test_every_spelling_of_a_denied_host_of_a_program_is_denied(host: str) -> None:
    rule = ApprovalRule(tool="shell", policy="deny", match={"network": '*"PyPI.org:443"*'})
    decided = decide(
        "shell", {"command": "x", "network": ["a.example:80", host]}, [[rule]], tainted=False, executes=True
    )
    assert decided.policy == "deny"
