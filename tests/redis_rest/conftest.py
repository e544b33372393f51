"""Fixtures: a Valkey, a gateway in front of it, and both kinds of client."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import pytest

from infra.redis_rest import RedisRest
from tests.support.servers import gateway_fixture, valkey_fixture

tcp_settings = valkey_fixture()
rest_settings = gateway_fixture()

Connect: TypeAlias = Callable[..., RedisRest]


@pytest.fixture(params=[False, True], ids=["aiohttp", "httpx"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Return the constructor of a client, once for each transport."""
    return partial(RedisRest, starts_cold=request.param)
