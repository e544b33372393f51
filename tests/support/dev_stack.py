"""Dev stack with real workers, for tests of what its users do."""

from collections.abc import Iterator
from typing import Any

import pytest

from infra.devstack.background import BackgroundStack
from infra.devstack.stack import DevStack


def dev_stack_fixture() -> Any:
    """Return a fixture of a stack with two workers, for all tests of a module."""

    @pytest.fixture(scope="module")
    def dev_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
        with BackgroundStack(DevStack(tmp_path_factory.mktemp("stack"), workers=2)) as stack:
            yield stack

    return dev_stack
