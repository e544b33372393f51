"""Dev stack with real workers, for tests of what its users do."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from infra.devstack.background import BackgroundStack
from infra.devstack.stack import DevStack


def dev_stack_fixture(**variables: str) -> Any:
    """Return a fixture of a stack with two workers and these further variables, for all tests of a module."""

    @pytest.fixture(scope="module")
    def dev_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
        folder = tmp_path_factory.mktemp("stack")
        with BackgroundStack(DevStack(folder, workers=2, environment={**os.environ, **variables})) as stack:
            yield stack

    return dev_stack
