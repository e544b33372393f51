"""The API as a process: settings, start, shutdown, and the modules that a cold start loads."""

import contextlib
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from infra.settings import RedisRestSettings
from tests.edge.api_process import ENV, TOKEN, running, start
from tests.edge.stack import PLAN


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"UPSTASH_REDIS_REST_URL": ""}, "UPSTASH_REDIS_REST_URL"),
        ({"S3_SECRET_KEY": ""}, "S3_SECRET_KEY"),
        ({"SWISSBRAIN_API_KEYS": ""}, "SWISSBRAIN_API_KEYS"),
        ({"EDGE_PORT": "http"}, "EDGE_PORT"),
        ({"EDGE_LOG_MODE": "buffered"}, "EDGE_LOG_MODE"),
        ({"EDGE_CORS_ORIGINS": "https://a.example, b.example"}, "EDGE_CORS_ORIGINS"),
        ({"EDGE_STREAM_TOKEN_KEY": "short"}, "EDGE_STREAM_TOKEN_KEY"),
    ],
)
def test_the_error_for_a_bad_setting_is_one_line_that_names_it(changes: dict[str, str], named: str) -> None:
    ended = start(**changes)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(named)
    assert ended.stderr.count("\n") == 1


def test_the_error_for_a_port_in_use_is_one_line(rest_settings: RedisRestSettings) -> None:
    ended = start(EDGE_PORT=rest_settings.url.rsplit(":", 1)[1])
    assert ended.returncode == 1
    assert ended.stderr.startswith("cannot listen on 127.0.0.1:")
    assert ended.stderr.count("\n") == 1


def test_sigterm_ends_the_streams_and_the_process(rest_settings: RedisRestSettings) -> None:
    with running(rest_settings, RETENTION_DAYS="1", REDIS_KEY_PREFIX="{own}:") as (process, url):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, timeout=20) as http:
            run_id = http.post("/agent/runs", json=PLAN).json()["run_id"]
            with http.stream("GET", f"/agent/logs/{run_id}/stream?secret=no") as answer:
                assert answer.status_code == 422
            with http.stream("GET", f"/agent/logs/{run_id}/stream") as answer:
                lines = answer.iter_lines()
                assert next(lines) == "retry: 1000"
                process.send_signal(signal.SIGTERM)
                assert list(lines) == []
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "secret" not in errors
    assert TOKEN not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_silent_connections_do_not_shut_out_requests_that_need_redis(
    rest_settings: RedisRestSettings, first: bytes
) -> None:
    with running(rest_settings, open_files="160", RETENTION_DAYS="1", REDIS_KEY_PREFIX="{own}:") as (process, url):
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(300)]
            for connection in silent:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(first)
            for _ in range(3):
                answer = httpx.post(f"{url}/agent/runs", json=PLAN, headers={"Authorization": f"Bearer {TOKEN}"})
                assert answer.status_code == 201
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert errors.count('"action":"server.full"') == 1


@pytest.mark.parametrize(
    "root",
    [
        "from edge_api import handler; handler.handler({'source': 'aws.events'}, None)",
        "from edge_api.lambda_stream import __main__ as start; start.build_app(os.environ)",
    ],
)
def test_a_cold_start_loads_no_unneeded_module(root: str) -> None:
    program = f"import os, sys; {root}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", program], env=ENV, capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert {"edge_api", "starlette", "mangum", "upstash_redis"} <= loaded
    unwanted = {
        "aiohttp",
        "jwt",
        "boto3",
        "botocore",
        "redis",
        "pydantic",
        "pydantic_settings",
        "uvicorn",
        "kubernetes",
        "hiredis",
    }
    assert not loaded & unwanted
