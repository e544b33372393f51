"""A client in front of a server that does as it is told."""

from collections.abc import Iterator

import pytest

from swissbrain import Client
from tests.client.stand_in import TOKEN, StandIn, stand_in


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
