"""Proxies and certificates that the environment names."""

import io
import os
import ssl
from pathlib import Path

import httpx
import pytest

from swissbrain import Client, ClientError, Unreachable
from swissbrain.environment import _matches
from tests.client.both_clients import Connect
from tests.client.scripted_server import TOKEN, ScriptedServer, ok, reply

DEPTHS = {"pending": 0, "ready": 0, "delayed": 0, "running": 0, "dead": 0}


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("entry", "url", "matches"),
    [
        ("*", "http://any.example", True),
        ("example", "http://example", True),
        ("api.example", "https://API.example", True),
        ("API.Example", "https://api.example", True),
        ("api.example", "https://eu.api.example", True),
        (".api.example", "https://eu.api.example", True),
        ("*.api.example", "https://eu.api.example", True),
        ("pi.example", "https://api.example", False),
        ("api.example:443", "https://api.example", True),
        ("api.example:8443", "https://api.example", False),
        ("api.example:8443", "https://api.example:8443", True),
        ("https://api.example", "https://api.example", True),
        ("http://api.example", "https://api.example", False),
        ("all://api.example", "https://api.example", True),
        ("127.0.0.1", "http://127.0.0.1:8787", True),
        ("127.0.0.0/8", "http://127.0.0.1:8787", True),
        ("10.0.0.0/8", "http://127.0.0.1", False),
        ("10.0.0.1/8", "http://10.9.9.9", True),
        ("::1", "http://[::1]:8787", True),
        ("[::1]", "http://[::1]:8787", True),
        ("[::1]:8787", "http://[::1]:8787", True),
        ("[::1]:8788", "http://[::1]:8787", False),
        ("fd00:abcd::/32", "http://[fd00:abcd::7]", True),
        ("fd00:abcd::/32", "http://127.0.0.1", False),
        ("fd00:abcd::/32", "http://api.example", False),
        ("fd00:abcd::/999", "http://[fd00:abcd::7]", False),
        ("[", "http://api.example", False),
        ("]:x:", "http://api.example", False),
        ("", "http://api.example", False),
        (".", "http://api.example", False),
        ("http://", "http://api.example", False),
        ("é", "http://api.example", False),
    ],
)
def test_an_entry_of_no_proxy_names_hosts(entry: str, url: str, matches: bool) -> None:
    assert _matches(entry, httpx.URL(url)) is matches


@pytest.mark.parametrize("value", ["localhost,fd00:abcd::/32", "::1,[::1]", "[,]:,%%,http://[", "127.0.0.1"])
def test_entries_for_other_hosts_do_not_matter(
    api: ScriptedServer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NO_PROXY", value)
    api.always = ok(DEPTHS)
    with Client(api.url, TOKEN) as client:
        client.queue()
    assert api.targets == ["/agent/queue"]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_requests_pass_through_the_proxy_unless_no_proxy_names_their_host(
    api: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    api.always = ok(DEPTHS)
    monkeypatch.setenv(variable, scheme + api.url.removeprefix("http://"))
    with Client("http://api.example", TOKEN) as client:
        client.queue()
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
    with Client(api.url, TOKEN) as client:
        client.queue()
    assert api.targets == ["http://api.example/agent/queue", "/agent/queue"]


def test_files_are_fetched_through_the_proxy_of_the_store(api: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", api.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,fd00::/8")
    api.then(reply(307, location="http://store.example/object?signature=1"), reply(200, b"content"))
    content = io.BytesIO()
    with Client(api.url, TOKEN) as client:
        client.download("a", "b", content)
    assert content.getvalue() == b"content"
    assert api.targets == ["/agent/runs/a/files/b", "http://store.example/object?signature=1"]
    assert "authorization" not in api.requests[1].headers


@pytest.mark.usefixtures("pauses")
def test_a_proxy_that_does_not_answer_is_named(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://ada:secret@127.0.0.1:1")
    message = r"^cannot reach the API at http://api\.example through the proxy in HTTP_PROXY: "
    with connect("http://api.example", TOKEN) as client, pytest.raises(Unreachable, match=message) as caught:
        client.queue()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://ada:secret@host:port"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_an_unusable_proxy_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str) -> None:
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(ClientError, match=f"^the proxy in {variable} cannot be used: ") as caught:
        Client("https://api.example", TOKEN)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "content"), [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", b"no certificate"), ("SSL_CERT_DIR", None)]
)
def test_unusable_certificates_are_named_by_their_variable(
    api: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, content: bytes | None
) -> None:
    place = tmp_path / "ca.pem"
    if content is not None:
        place.write_bytes(content)
    monkeypatch.setenv(variable, str(place))
    with pytest.raises(ClientError, match=f"{place}, which {variable} names"):
        Client("https://api.example", TOKEN)
    api.always = ok(DEPTHS)
    with Client(api.url, TOKEN) as client:  # http:// needs no certificates
        client.queue()


def test_no_certificates_are_read_for_an_address_without_tls(
    api: ScriptedServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ssl, "create_default_context")
    api.always = ok(DEPTHS)
    with connect(api.url, TOKEN) as client:
        client.queue()
