"""Fixture: one dev stack for the files of this folder that only add runs to it."""

from collections.abc import Iterator

import pytest

from infra.devstack.background import BackgroundStack
from infra.devstack.stack import DevStack


@pytest.fixture(scope="package")
def dev_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Run a stack with two workers. A file that uses it belongs to the group of its folder in tests/conftest.py."""
    with BackgroundStack(DevStack(tmp_path_factory.mktemp("stack"), workers=2)) as stack:
        yield stack
