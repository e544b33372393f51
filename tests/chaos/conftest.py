"""A whole site for each file of tests; each test begins without workers."""

from collections.abc import Iterator

import pytest

from tests.chaos.site import Site, site
from tests.chaos.watching import GENEROUS_S
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.fixture
def place(whole: Site) -> Iterator[Site]:
    """The site without workers, and with nothing left of the test."""
    yield whole
    whole.heal()
    whole.remove_workers()
    wait_until(lambda: not whole.strays(), "no process is left", timeout_s=GENEROUS_S)
