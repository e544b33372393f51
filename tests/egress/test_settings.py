"""Policy of the operator for the network of programs, and what a call is granted within it."""

import pytest

from infra.egress.settings import NetworkSettings
from infra.settings import Env, SettingsError
from worker.toolkit.base import ToolFailed
from worker.toolkit.network import granted, named


def made(**variables: str) -> NetworkSettings:
    return NetworkSettings.from_env(Env({f"TOOLS_NETWORK_{name}": value for name, value in variables.items()}))


def test_by_default_nothing_is_allowed() -> None:
    assert made() == NetworkSettings(allow=[])
    assert not made().allows_any
    with pytest.raises(
        ToolFailed, match="'a:443' is not within TOOLS_NETWORK_ALLOW of this worker, which allows no"
    ) as f:
        granted(["a:443"], made())
    assert f.value.code == "network_not_allowed"


@pytest.mark.parametrize(
    ("allow", "entries", "refused"),
    [
        ("example.org", "example.org:80 Example.ORG.:443", "www.example.org:443 example.org:22 *.example.org:80"),
        ("*.example.org", "a.example.org:80 *.example.org:443 *.a.example.org:80", "example.org:80 *.org:80"),
        ("*.example.org:8443", "*.example.org:8443", "*.example.org:443 a.example.org:443 badexample.org:8443"),
        ("*:443", "a:443 *.a:443 1.1.1.1:443 [2606:4700::1111]:443", "a:80 *.a:80"),
        ("1.1.1.1", "1.1.1.1:80 0x01010101:443", "1.1.1.2:80 *.1.1.1:80"),
        ("a, b:1", "a:80 b:1", "b:80 a:1"),
    ],
)
def test_a_call_is_granted_what_lies_within_the_policy(allow: str, entries: str, refused: str) -> None:
    settings = made(ALLOW=allow)
    assert len(granted(entries.split(), settings)) == len(entries.split())
    for entry in refused.split():
        with pytest.raises(ToolFailed):
            granted([entry], settings)


def test_entries_have_one_spelling_and_one_order() -> None:
    settings = made(ALLOW="*:443", PRIVATE_HOSTS="Mirror:8080")
    assert granted(["B.test.:443", "a.test:443", "b.test:443", "mirror:8080"], settings) == (
        "a.test:443",
        "b.test:443",
        "mirror:8080",
    )
    with pytest.raises(ToolFailed):
        granted(["*.mirror:8080"], settings)
    assert settings.entries == ["*:443", "mirror:8080"]


def test_an_entry_that_no_host_can_have_is_named() -> None:
    with pytest.raises(ToolFailed, match="cannot be used: the host ends in a number") as failed:
        granted(["1.2.3.4.5:1"], made(ALLOW="*:443"))
    assert failed.value.code == "invalid_input"


@pytest.mark.parametrize("variables", [{"ALLOW": "https://a"}, {"PRIVATE_HOSTS": "a"}, {"MAX_BYTES": "1"}])
def test_a_bad_setting_is_named(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"TOOLS_NETWORK_{next(iter(variables))}"):
        made(**variables)


def test_long_lists_are_cut() -> None:
    assert named([f"h{number}" for number in range(7)]) == "h0, h1, h2, h3, h4 and 2 more"
