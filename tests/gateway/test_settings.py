"""Settings of the gateway, and the gateway as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from infra.gateway.app import create_gateway
from infra.gateway.settings import GatewaySettings, RedisTarget, parse_target
from infra.settings import Env, SettingsError
from tests.gateway.support import Served, Subscriber, Valkey
from tests.support.redis import free_port
from tests.support.waiting import wait_until

GOOD = {"GATEWAY_REDIS_URL": "redis://h", "GATEWAY_TOKEN": "t"}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://h", RedisTarget(host="h", port=6379)),
        ("redis://h:7/3", RedisTarget(host="h", port=7, db=3)),
        ("rediss://u:p%40%2F@h", RedisTarget(host="h", port=6379, tls=True, user="u", password="p@/")),
        ("redis://:p@[::1]:7", RedisTarget(host="::1", port=7, password="p")),
        ("unix:///run/redis.sock", RedisTarget(path="/run/redis.sock")),
        ("unix://u:p@/run/r.sock?db=2", RedisTarget(path="/run/r.sock", user="u", password="p", db=2)),
    ],
)
def test_a_url_is_parsed(url: str, target: RedisTarget) -> None:
    assert parse_target(url) == target


@pytest.mark.parametrize(
    "url",
    ["http://h", "h:6379", "redis://", "redis://h/x", "redis://h:x", "redis://h:99999", "redis://h?a=b", "unix://",
     "unix://run/redis.sock", "unix:///s?db=x", "unix:///s?a=b", "redis://[h", "redis://u:secret#x@h"],
)  # fmt: skip
def test_the_error_for_a_bad_url_names_the_variable_but_not_the_value(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_REDIS_URL ") as caught:
        GatewaySettings.from_env(Env(GOOD | {"GATEWAY_REDIS_URL": url}))
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError):
        create_gateway(GatewaySettings(redis_url=url, token="t"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("GATEWAY_REDIS_URL", ""), ("GATEWAY_TOKEN", " "), ("GATEWAY_PORT", "x"), ("GATEWAY_PORT", "70000"),
     ("GATEWAY_POOL_SIZE", "0"), ("GATEWAY_MAX_REQUEST_BYTES", "-1"), ("GATEWAY_POOL_TIMEOUT_S", "nan"),
     ("GATEWAY_COMMAND_TIMEOUT_S", "soon"), ("GATEWAY_READONLY_TOKEN", "t"), ("GATEWAY_REDIS_CA_FILE", "/none")],
)  # fmt: skip
def test_the_error_for_a_bad_variable_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} ") as caught:
        GatewaySettings.from_env(Env(GOOD | {name: value}))
    assert "\n" not in str(caught.value)


def test_every_variable_is_read() -> None:
    texts = {
        "READONLY_TOKEN": "r",
        "HOST": "0.0.0.0",
        "PORT": "1",
        "MAX_REQUEST_BYTES": "2",
        "POOL_SIZE": "3",
        "POOL_TIMEOUT_S": "4.5",
        "CONNECT_TIMEOUT_S": "5.5",
        "COMMAND_TIMEOUT_S": "6.5",
        "IDLE_CHECK_S": "7.5",
        "HEARTBEAT_S": "8.5",
        "SHUTDOWN_TIMEOUT_S": "9.5",
        "SUBSCRIBER_BUFFER_BYTES": "10",
        "REDIS_CA_FILE": __file__,
    }
    settings = GatewaySettings.from_env(Env(GOOD | {f"GATEWAY_{name}": text for name, text in texts.items()}))
    assert {name: str(getattr(settings, name.lower())) for name in texts} == texts
    assert GatewaySettings.from_env(Env(GOOD)) == GatewaySettings(redis_url="redis://h", token="t")


def test_secrets_are_not_in_the_repr() -> None:
    settings = GatewaySettings(redis_url="redis://:secret@h", token="secret", readonly_token="secret")
    assert "secret" not in repr(settings)
    assert "secret" not in repr(settings.target())
    assert replace(settings, token="other") != settings


def command(**variables: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | variables
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-m", "infra.gateway"]
    return subprocess.Popen(argv, cwd=root, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_command_rejects_bad_settings_with_one_line() -> None:
    with command(GATEWAY_REDIS_URL="redis://h") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (2, "", "GATEWAY_TOKEN is not set\n")


def test_the_error_for_a_port_in_use_is_one_line(valkey: Valkey, served: Served) -> None:
    variables = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_TOKEN": "t", "GATEWAY_PORT": str(served.port)}
    with command(**variables) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err == f"cannot listen on 127.0.0.1:{served.port}: Address already in use\n"


def test_the_command_serves_and_stops_on_sigterm_without_logging_a_token(valkey: Valkey, served: Served) -> None:
    port = free_port()
    variables = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_TOKEN": "very-secret", "GATEWAY_PORT": str(port)}
    with command(**variables) as process:
        url = f"http://127.0.0.1:{port}/ping?_token=very-secret"

        def answers() -> bool:
            try:
                return httpx.get(url, trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, "the process serves")
        assert httpx.get(f"{url}x", trust_env=False).status_code == 401
        own = Served(f"http://127.0.0.1:{port}", port, served.gateway, lambda: None)
        with Subscriber(own, "/subscribe/c?_token=very-secret", token="very-secret") as subscriber:
            subscriber.expect(["subscribe,c,1"])
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
            wait_until(lambda: subscriber.ended, "the stream ends")
            assert subscriber.clean_end
    assert process.returncode in (0, -signal.SIGTERM)
    assert "very-secret" not in err
    assert all(line.startswith("{") for line in err.splitlines())
