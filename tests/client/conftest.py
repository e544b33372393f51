"""A client, and the command, in front of a server that does as it is told."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from swissbrain import Client
from swissbrain.cli import main
from swissbrain.cli.access import TOKEN as TOKEN_VARIABLE
from swissbrain.cli.access import URL
from tests.client.stand_in import TOKEN, StandIn, stand_in


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def api() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture
def client(api: StandIn) -> Iterator[Client]:
    with Client(api.url, TOKEN, timeout_s=20) as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are noted down and not waited for."""
    noted: list[float] = []
    monkeypatch.setattr("time.sleep", noted.append)
    return noted


@pytest.fixture
def swissbrain(
    api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command in this process, in an empty folder, and told where the API is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URL, api.url)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["swissbrain", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert isinstance(left.value.code, int)
        return Said(left.value.code, *capsys.readouterr())

    return run
