"""Settings of `http_fetch`."""

import pytest

from infra.settings import Env, SettingsError
from worker.fetch.settings import FetchSettings


def made(**variables: str) -> FetchSettings:
    return FetchSettings.from_env(Env({f"HTTP_FETCH_{name}": value for name, value in variables.items()}))


def test_by_default_no_host_is_allowed() -> None:
    assert made() == FetchSettings(hosts=[])
    assert not made().allows("example.org", 443)


@pytest.mark.parametrize(
    ("hosts", "allowed", "refused"),
    [
        ("example.org", ["example.org:80", "example.org:443"], ["www.example.org:443", "example.org:8080", "org:80"]),
        ("*.example.org", ["a.example.org:80", "a.b.example.org:443"], ["example.org:80", "badexample.org:80"]),
        ("*", ["example.org:80", "1.1.1.1:443"], ["example.org:22"]),
        ("*:8443", ["example.org:8443"], ["example.org:443"]),
        (" Example.ORG.:8443 ,, *.a ", ["example.org:8443", "b.a:80"], ["example.org:443", "a:80"]),
        ("0x01010101", ["1.1.1.1:80"], ["1.1.1.2:80"]),
        ("[2606:4700:0::1111]:81", ["2606:4700::1111:81"], ["2606:4700::1111:80"]),
    ],
)
def test_patterns_allow_hosts_on_ports(hosts: str, allowed: list[str], refused: list[str]) -> None:
    settings = made(HOSTS=hosts)
    for endpoint in allowed + refused:
        host, _, port = endpoint.rpartition(":")
        assert settings.allows(host, int(port)) == (endpoint in allowed), endpoint


def test_a_private_host_is_allowed_on_its_port_alone() -> None:
    settings = made(PRIVATE_HOSTS="Intranet:8080, [::1]:80, 127.1:81")
    assert settings.private_hosts == {("intranet", 8080), ("::1", 80), ("127.0.0.1", 81)}
    assert settings.allows("intranet", 8080)
    assert not settings.allows("intranet", 80)


@pytest.mark.parametrize(
    "entry", ["a b", "https://a", "a/b", "a:0", "a:65536", "a:x", "a*", "*.*", "*a", "**", "a.*", "*."]
)
def test_a_bad_host_is_named(entry: str) -> None:
    with pytest.raises(SettingsError, match="HTTP_FETCH_HOSTS has the entry ") as failed:
        made(HOSTS=f"ok, {entry}")
    assert f"'{entry}'" in str(failed.value)


@pytest.mark.parametrize(
    "entry", ["a", "*:80", "*.a:80", "a:0", "::1:80", "bücher:80", "10.0.0.0/8:80", "[1.1.1.1]:80"]
)
def test_a_bad_private_host_is_named(entry: str) -> None:
    with pytest.raises(SettingsError, match="HTTP_FETCH_PRIVATE_HOSTS has the entry ") as failed:
        made(PRIVATE_HOSTS=entry)
    assert f"'{entry}'" in str(failed.value)


def test_lists_and_sizes_are_bounded() -> None:
    with pytest.raises(SettingsError, match="at most 1000 entries"):
        made(HOSTS=",".join(f"h{n}" for n in range(1001)))
    for size in ("1023", "104857601", "x"):
        with pytest.raises(SettingsError, match="HTTP_FETCH_MAX_BYTES must be"):
            made(MAX_BYTES=size)
