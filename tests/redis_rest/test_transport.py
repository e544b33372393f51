"""TLS, proxies, redirects, cancellation and secrets of the client of the Redis REST API."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.contract.errors import StoreUnavailable
from infra.settings import RedisRestSettings, SettingsError
from tests.redis_rest.conftest import Connect
from tests.redis_rest.raw_server import TOKEN, Connection, always, answer, raw_server
from tests.support.certificates import needs_openssl, new_authority, openssl, server_context

FROZEN_CLIENT = """
import asyncio, sys
from infra.redis_rest import RedisRest
from infra.settings import RedisRestSettings

async def main():
    redis = RedisRest(RedisRestSettings(sys.argv[1], "t"), starts_cold=True)
    for _ in range(int(sys.argv[2])):
        print(await redis.command("GET", "k"), flush=True)
        sys.stdin.readline()  # the event loop stands still, as in a frozen process
    await redis.close()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def get(connect: Connect, url: str, timeout_s: float = 10) -> object:
    redis = connect(RedisRestSettings(url, TOKEN, timeout_s))
    try:
        return await redis.command("GET", "k")
    finally:
        await redis.close()


async def refused(connect: Connect, url: str) -> str:
    """Return the message of a failed command; assert that no part of the error has the token."""
    with pytest.raises(StoreUnavailable) as caught:
        await get(connect, url)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@needs_openssl
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_certificates_of_the_environment_are_trusted_and_no_others(
    connect: Connect, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_authority(tmp_path)
    trusted, other = tmp_path / "trusted", tmp_path / "other"
    for folder in (trusted, other):
        folder.mkdir()
    shutil.copy(tmp_path / "ca.pem", trusted)
    new_authority(other)
    for folder in (trusted, other):
        openssl("rehash", folder)
    name = "ca.pem" if variable == "SSL_CERT_FILE" else ""
    monkeypatch.delenv("SSL_CERT_DIR")
    async with raw_server(always(answer()), server_context(tmp_path, "localhost")) as server:
        assert "Connect" in await refused(connect, server.url)
        monkeypatch.setenv(variable, str(other / name))
        assert "Connect" in await refused(connect, server.url)
        monkeypatch.setenv(variable, str(trusted / name))
        assert await get(connect, server.url) == "a"
        assert len(server.requests) == 1, "a request goes only to a server that has proved its name"


@needs_openssl
async def test_a_certificate_for_another_name_or_another_time_is_refused(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with raw_server(always(answer()), server_context(tmp_path, "example.org")) as server:
        assert "Connect" in await refused(connect, server.url)
    expired = server_context(tmp_path, "localhost", "-days", "-1")
    async with raw_server(always(answer()), expired) as server:
        assert "Connect" in await refused(connect, server.url)
        assert not server.requests


def test_certificates_that_cannot_be_read_are_an_error_of_the_settings(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")
    monkeypatch.delenv("SSL_CERT_DIR")
    with pytest.raises(SettingsError, match="SSL_CERT_FILE"):
        connect(RedisRestSettings("https://localhost:1", TOKEN))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_no_other_host_gets_the_token(connect: Connect, status: int) -> None:
    async with raw_server(always(answer())) as other:
        redirect = answer(b"", b"Location: " + other.url.encode(), status=b"%d Moved" % status)
        async with raw_server(always(redirect)) as server:
            message = await refused(connect, server.url)
            assert f"status {status}, a redirect" in message
            assert "UPSTASH_REDIS_REST_URL" in message
        assert other.connections == 0


async def test_requests_go_through_the_proxy_of_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw_server(always(answer())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:p4ssw0rd@"))
        assert await get(connect, "http://redis.test:8079") == "a"
        assert proxy.requests[0].startswith(b"POST http://redis.test:8079")
        assert b"dXNlcjpwNHNzdzByZA==" in proxy.requests[0]


async def test_https_goes_through_a_tunnel_that_does_not_see_the_token(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw_server(always(answer(status=b"407 Authentication Required"))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:p4ssw0rd@"))
        message = await refused(connect, "https://redis.test")
        assert "p4ssw0rd" not in message
        assert proxy.requests[0].startswith(b"CONNECT redis.test:443 HTTP/1.1\r\n")
        assert TOKEN.encode() not in proxy.requests[0]


@pytest.mark.parametrize("entry", ["*", "localhost", "x.test, localhost", "localhost:{port}"])
async def test_no_proxy_names_hosts_that_are_reached_directly(
    connect: Connect, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with raw_server(always(answer())) as server:
        monkeypatch.setenv("NO_PROXY", entry.format(port=server.url.rpartition(":")[2]))
        assert await get(connect, server.url) == "a"


@pytest.mark.parametrize("token", ["line\nend", "nul\0"])
async def test_a_malformed_token_or_address_is_not_in_the_error(connect: Connect, token: str) -> None:
    for url in ("http://localhost:1", "http://user:p4ssw0rd@[::1"):
        redis = connect(RedisRestSettings("http://localhost:1", f"{TOKEN}{token}"))
        redis._upstash._sdk._url = url
        with pytest.raises(StoreUnavailable) as caught:
            await redis.command("GET", "k")
        shown = "".join(traceback.format_exception(caught.value))
        assert TOKEN not in shown
        assert "p4ssw0rd" not in shown
        await redis.close()


async def test_the_password_of_an_address_that_cannot_be_reached_is_not_in_the_error(connect: Connect) -> None:
    assert "p4ssw0rd" not in await refused(connect, "http://user:p4ssw0rd@127.0.0.1:1")


async def test_cancelled_requests_leave_no_answer_to_others(connect: Connect) -> None:
    """Commands are cancelled at random moments; each other command gets the reply with its own key."""
    chance = random.Random(7)

    async def whole(connection: Connection) -> bool:
        await asyncio.sleep(chance.random() * 0.02)
        key = connection.request.rpartition(b'"k')[2].partition(b'"')[0]
        data = answer(b'{"result":%b}' % key)
        cut = chance.randrange(len(data))
        await connection.send(data[:cut])
        await asyncio.sleep(chance.random() * 0.005)
        await connection.send(data[cut:])
        return True

    async with raw_server(whole) as server:
        redis = connect(RedisRestSettings(server.url, TOKEN))
        for first in range(0, 1000, 50):
            calls = [
                asyncio.create_task(redis.pipeline([("GET", f"k{number}")])) for number in range(first, first + 50)
            ]
            for call in calls[::2]:
                asyncio.get_running_loop().call_later(chance.random() * 0.03, call.cancel)
            for number, result in enumerate(await asyncio.gather(*calls, return_exceptions=True), first):
                assert result == [number] or isinstance(result, asyncio.CancelledError)
        await redis.close()


@pytest.fixture
def frozen_client() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_process_that_was_frozen_does_not_use_what_was_closed_meanwhile(
    connect: Connect, reset: bool, frozen_client: list[subprocess.Popen[str]]
) -> None:
    rounds = 8
    to_close: list[Connection] = []

    async def reply(connection: Connection) -> bool:
        to_close.append(connection)
        await connection.send(answer())
        return True

    async with raw_server(reply) as server:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", FROZEN_CLIENT, server.url, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        frozen_client.append(process)
        assert process.stdin
        assert process.stdout
        for _ in range(rounds):
            assert await asyncio.to_thread(process.stdout.readline) == "a\n"
            os.kill(process.pid, signal.SIGSTOP)
            connection = to_close.pop()
            if reset:
                connection.reset()
            else:
                connection.end()
            await asyncio.sleep(0.05)
            process.stdin.write("\n")
            os.kill(process.pid, signal.SIGCONT)
        assert server.connections == len(server.requests) == rounds
