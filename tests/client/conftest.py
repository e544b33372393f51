"""Client and command in front of a scripted server."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import NamedTuple

import pytest

from swissbrain import Client
from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from swissbrain.cli import main
from tests.client.both_clients import CLIENTS, Connect
from tests.client.real_api import Real, real_api
from tests.client.scripted_server import TOKEN, ScriptedServer, scripted_server
from tests.edge.stack import TOKENS, SimulatedWorker


class CommandResult(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., CommandResult]


@pytest.fixture
def api() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """Return what makes a client: Client, then AsyncClient behind the same interface."""
    return CLIENTS[request.param]


@pytest.fixture
def client(api: ScriptedServer, connect: Connect) -> Iterator[Client]:
    with connect(api.url, TOKEN, timeout_s=20) as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the pauses between attempts by entries of a list, in seconds."""
    recorded: list[float] = []

    async def record(seconds: float) -> None:
        recorded.append(seconds)

    monkeypatch.setattr("time.sleep", recorded.append)
    monkeypatch.setattr("anyio.sleep", record)
    return recorded


@pytest.fixture
def swissbrain(
    api: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the command in this process, in an empty folder, with the address of the scripted server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URL, api.url)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)

    def run(*words: str) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["swissbrain", *words])
        handler = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as caught:
                copy_context().run(main)  # as in a process of its own: the profile of a command is not that of the next
        finally:
            signal.signal(signal.SIGINT, handler)
        assert isinstance(caught.value.code, int)
        return CommandResult(caught.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with real_api(tmp_path_factory.mktemp("valkey")) as made:
        yield made


@pytest.fixture
def worker(real: Real) -> SimulatedWorker:
    """Return the simulated worker, over an empty database."""
    real.do(real.worker.redis.command("FLUSHALL"))
    return real.worker


@pytest.fixture
def ada(real: Real, worker: SimulatedWorker, connect: Connect) -> Iterator[Client]:
    with connect(real.url, TOKENS["ada"]) as client:
        yield client
