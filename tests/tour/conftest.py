"""Fixture: one dev stack for the files of this folder that only add runs to it."""

import os
from collections.abc import Iterator

import pytest

from infra.devstack.background import BackgroundStack
from infra.devstack.stack import DevStack
from tests.support.redis import free_port


@pytest.fixture(scope="package")
def receiver_port() -> int:
    """Port of this machine to which the stack sends webhooks, although they may not go to loopback addresses."""
    return free_port()


@pytest.fixture(scope="package")
def dev_stack(tmp_path_factory: pytest.TempPathFactory, receiver_port: int) -> Iterator[DevStack]:
    """Run a stack with two workers. A file that uses it belongs to the group of its folder in tests/conftest.py."""
    variables = {**os.environ, "EDGE_WEBHOOK_PRIVATE_HOSTS": f"127.0.0.1:{receiver_port}"}
    with BackgroundStack(DevStack(tmp_path_factory.mktemp("stack"), workers=2, environment=variables)) as stack:
        yield stack
