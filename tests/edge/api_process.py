"""The API as a process, as tests start it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from infra.settings import RedisRestSettings
from tests.support.redis import accepts, free_port
from tests.support.waiting import wait_until

TOKEN = "a-token"
KEY = {"user": "ada", "scopes": ["runs:read", "runs:write"], "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
ENV = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": os.pathsep.join(sys.path),
    "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9",
    "UPSTASH_REDIS_REST_TOKEN": "t",
    "S3_ACCESS_KEY": "a",
    "S3_SECRET_KEY": "s",
    "SWISSBRAIN_API_KEYS": json.dumps([KEY]),
}


def start(**changes: str) -> "subprocess.CompletedProcess[str]":
    """Start a server that must fail; return the ended process."""
    command = [sys.executable, "-m", "edge_api"]
    return subprocess.run(command, env={**ENV, **changes}, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def running(
    rest: RedisRestSettings, port: int | None = None, open_files: str = "1024", **changes: str
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start a server, on a free port by default; yield its process and its URL."""
    port = port or free_port()
    env = {**ENV, "UPSTASH_REDIS_REST_URL": rest.url, "UPSTASH_REDIS_REST_TOKEN": rest.token, **changes}
    command = ["sh", "-c", f'ulimit -n {open_files}; exec "$0" -m edge_api', sys.executable]
    process = subprocess.Popen(command, env={**env, "EDGE_PORT": str(port)}, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or accepts(port), "the API listens")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()
