"""Fixtures: one site for each module of tests; every test starts without workers."""

from collections.abc import Iterator

import pytest

from tests.chaos.scenario_helpers import TIMEOUT_S
from tests.chaos.site import ChaosSite, running_site
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosSite]:
    with running_site(tmp_path_factory.mktemp("chaos")) as running:
        yield running


@pytest.fixture
def site(module_site: ChaosSite) -> Iterator[ChaosSite]:
    """Site without workers. After the test all faults are ended, and no orphaned process may be left."""
    yield module_site
    module_site.heal()
    module_site.remove_workers()
    wait_until(lambda: not module_site.orphans(), "no orphaned process is left", timeout_s=TIMEOUT_S)
