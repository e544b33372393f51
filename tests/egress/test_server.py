"""Proxy of a cluster: tokens of calls, connections of pods, its process."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
import jwt
import pytest

from infra.address_guard import AddressGuard
from infra.contract.execution import Command
from infra.egress import server
from infra.egress.server import EgressServer
from infra.egress.settings import EgressSettings, token_key
from infra.egress.tokens import LEEWAY_S, MAX_TOKEN_CHARS, BadToken, EgressTokens
from infra.settings import Env, SettingsError
from tests.egress.conftest import exchange
from tests.support.scripted_http import Wire
from tests.support.waiting import until
from tests.support.web_site import NAME, Names, Site, answer

KEY = "k" * 32
TOKENS = EgressTokens(KEY)


def command(*network: str, call: str = "step-0") -> Command:
    return Command("run-1", call, "sh", "true", 10, network=network)


def authorization(token: str, user: str = "run") -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{token}".encode())


def time_after(seconds: float) -> float:
    return time.time() + seconds


def in_s(seconds: float) -> int:
    return int(time.time() + seconds)


class Pods:
    """Pods in front of a proxy."""

    def __init__(self, made: EgressServer, port: int) -> None:
        self.server = made
        self.port = port

    async def answer(self, request: bytes, credentials: bytes | None = None) -> bytes:
        """Send a request, with credentials or without, and return everything that comes back."""
        if credentials is not None:
            head, end, body = request.partition(b"\r\n\r\n")
            request = head + b"\r\nProxy-Authorization: " + credentials + end + body
        return await exchange(self.port, request)


@asynccontextmanager
async def pods_of(site: Site, connections: int = 100) -> AsyncIterator[Pods]:
    names = Names()
    settings = EgressSettings(KEY, max_bytes=10**6)
    made = EgressServer(settings, connections, lambda: AddressGuard([(NAME, site.port)], names))
    stopped = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(made.serve(listener, stopped))
        yield Pods(made, listener.getsockname()[1])
        stopped.set()
        await asyncio.wait_for(serving, 60)


@pytest.fixture
async def pods(site: Site) -> AsyncIterator[Pods]:
    async with pods_of(site) as made:
        yield made


def get(site: Site, path: str = "/") -> bytes:
    return f"GET {site.at(path)} HTTP/1.1\r\nHost: {NAME}:{site.port}\r\n\r\n".encode()


async def test_a_token_opens_the_hosts_of_its_call_alone(
    pods: Pods, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.serve("/", answer(b"reached"))
    token = TOKENS.sign(command(f"{NAME}:{site.port}"), in_s(60))
    assert (await pods.answer(get(site), authorization(token))).endswith(b"reached")
    assert "proxy-authorization" not in site.requests[0].headers
    other = TOKENS.sign(command("elsewhere.test:80"), in_s(60))
    assert b"403 Not in `network`" in await pods.answer(get(site), authorization(other))
    with caplog.at_level("INFO"):
        await pods.server.sessions.close()
        await pods.server.sessions.close()
    lines = [record.__dict__["fields"] for record in caplog.records if record.message == "egress.call"]
    assert [(line["run_id"], line["call"], line["refused"]) for line in lines] == [
        ("run-1", "step-0", []),
        ("run-1", "step-0", [f"{NAME}:{site.port}"]),
    ]
    assert list(lines[0]["hosts"]) == [f"{NAME}:{site.port}"]
    assert token not in caplog.text


CLAIMS = jwt.decode(TOKENS.sign(command("a.test:80"), in_s(60)), options={"verify_signature": False})


def forged(**claims: object) -> str:
    """Return a token as a worker signs it, except for some claims."""
    return jwt.encode({**CLAIMS, **claims}, KEY)


BAD = {
    "another key": authorization(EgressTokens("x" * 32).sign(command(), in_s(60))),
    "expired": authorization(TOKENS.sign(command(), in_s(-LEEWAY_S - 10))),
    "no signature": authorization(jwt.encode(CLAIMS, None, "none")),
    "for streams": authorization(forged(aud="swissbrain:stream")),
    "another issuer": authorization(forged(iss="x")),
    "no expiry": authorization(jwt.encode({"iss": "swissbrain", "aud": "swissbrain:egress", "sub": "r"}, KEY)),
    "bad network": authorization(forged(network="*")),
    "another user": authorization(forged(), user="root"),
    "no scheme": b"Bearer " + forged().encode(),
    "no base64": b"Basic \xff\xfe",
    "not ASCII": b"Basic " + base64.b64encode("run:tökèn".encode()),
    "too long": authorization("a" * (MAX_TOKEN_CHARS + 1)),
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_another_token_is_no_grant(name: str) -> None:
    with pytest.raises(BadToken) as failed:
        TOKENS.grant(BAD[name])
    assert BAD[name].decode("latin-1") not in str(failed.value) or not BAD[name]


async def test_without_a_token_nothing_is_reached_but_the_health(pods: Pods, site: Site) -> None:
    for credentials in (None, BAD["another key"], BAD["expired"]):
        for request in (get(site), f"CONNECT {NAME}:{site.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()):
            received = await pods.answer(request, credentials)
            assert received.startswith(b"HTTP/1.1 407 Proxy Authentication Required\r\n")
            assert b'proxy-authenticate: Basic realm="swissbrain-egress"\r\n' in received
    twice = authorization(TOKENS.sign(command(), in_s(60)))
    assert b" 407 " in await pods.answer(get(site), twice + b"\r\nProxy-Authorization: " + twice)
    assert (await pods.answer(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nok\n")
    assert site.requests == []


async def test_a_connection_belongs_to_one_call(pods: Pods, site: Site) -> None:
    site.serve("/", answer(b"reached"))
    network = f"{NAME}:{site.port}"
    both = [authorization(TOKENS.sign(command(network, call=call), in_s(60))) for call in ("step-0", "step-1")]
    second = get(site).replace(b"\r\n\r\n", b"\r\nProxy-Authorization: " + both[1] + b"\r\n\r\n")
    received = await pods.answer(get(site) + second, both[0])
    assert received.count(b"HTTP/1.1 200") == 1
    assert b"a connection belongs to one call" in received


async def test_an_expired_token_ends_open_connections_and_is_forgotten(pods: Pods, site: Site) -> None:
    site.serve("/", Wire.silence)
    sessions = pods.server.sessions
    credentials = authorization(TOKENS.sign(command(f"{NAME}:{site.port}"), in_s(60)))
    waiting = asyncio.ensure_future(pods.answer(get(site), credentials))
    await until(lambda: asyncio.sleep(0, site.requests), "the request has arrived")
    await sessions.sweep()
    assert not waiting.done()
    sessions._clock = lambda: time.time() + 61 + LEEWAY_S
    await sessions.sweep()
    with suppress(ConnectionResetError):
        assert await waiting == b""
    assert sessions._calls == {}


async def test_a_call_is_logged_when_it_is_quiet_and_again_when_it_goes_on(
    pods: Pods, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.serve("/", answer(b"reached"))
    sessions = pods.server.sessions
    credentials = authorization(TOKENS.sign(command(f"{NAME}:{site.port}"), in_s(3600)))
    counts = []
    with caplog.at_level("INFO"):
        for later_s, is_used in ((0, True), (100, True), (200, False)):
            sessions._clock = partial(time_after, later_s)
            if is_used:
                await pods.answer(get(site), credentials)
                await until(lambda: asyncio.sleep(0, not pods.server._peers), "the connection has ended")
            await sessions.sweep()
            counts.append(len([record for record in caplog.records if record.message == "egress.call"]))
            sessions._clock = partial(time_after, later_s + 61)
            await sessions.sweep()
            counts.append(len([record for record in caplog.records if record.message == "egress.call"]))
    assert counts == [0, 1, 1, 2, 2, 2]


async def test_pods_have_only_so_many_connections(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for connections, each in ((2, 100), (100, 2)):
        monkeypatch.setattr(server, "CONNECTIONS_PER_PEER", each)
        async with pods_of(site, connections) as pods:
            held = [await asyncio.open_connection("127.0.0.1", pods.port) for _ in range(2)]
            await until(lambda: asyncio.sleep(0, pods.server._peers.total() == 2), "both are accepted")
            refused, own = await asyncio.open_connection("127.0.0.1", pods.port)
            with suppress(ConnectionResetError):
                assert not await refused.read()
            for writer in (own, *(writer for _, writer in held)):
                writer.close()


def test_the_settings_have_a_long_key() -> None:
    with pytest.raises(SettingsError, match="EGRESS_TOKEN_KEY must have at least 32 characters"):
        token_key(Env({"EGRESS_TOKEN_KEY": "short"}))
    settings = EgressSettings.from_env(Env({"EGRESS_TOKEN_KEY": KEY, "TOOLS_NETWORK_PRIVATE_HOSTS": "mirror:80"}))
    assert settings == EgressSettings(KEY, private_hosts=frozenset({("mirror", 80)}))
    assert KEY not in repr(settings)


def test_the_process_serves_until_it_is_told_to_stop(site: Site) -> None:
    site.serve("/", answer(b"reached"))
    program = [sys.executable, "-P", "-m", "infra.egress"]
    base = {name: value for name, value in os.environ.items() if not name.startswith(("EGRESS", "TOOLS"))}
    failed = subprocess.run(program, env=base, capture_output=True, text=True, timeout=60, check=False)
    assert (failed.returncode, failed.stderr) == (2, "swissbrain-egress: EGRESS_TOKEN_KEY is not set\n")
    variables = {"EGRESS_TOKEN_KEY": KEY, "EGRESS_PORT": "0", "TOOLS_NETWORK_PRIVATE_HOSTS": f"127.0.0.1:{site.port}"}
    with subprocess.Popen(program, env={**base, **variables}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        started = json.loads(process.stderr.readline())
        assert started["action"] == "egress.started"
        target = f"127.0.0.1:{site.port}"
        url = TOKENS.proxy_url(f"127.0.0.1:{started['port']}", command(target), in_s(60))
        with httpx.Client(proxy=url, trust_env=False) as client:
            assert client.get(f"http://{target}/").text == "reached"
        process.send_signal(signal.SIGTERM)
        rest = [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    assert [line["action"] for line in rest] == ["egress.call", "egress.stopped"]
    assert rest[0]["hosts"].keys() == {target}
