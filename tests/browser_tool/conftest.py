"""Fixtures: the web site, and one browser for the tests of a file that leave it open."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.browser_tool.rig import BrowserBench
from tests.browser_tool.site import BrowserSite, browser_site
from tests.support.processes import children_of
from tests.support.servers import items_below, on_the_session_loop
from worker.browser.settings import BrowserSettings, installation

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="the program `chromium` is missing; install the Debian package `chromium`")
    for item in items_below(HERE, items):
        if on_the_session_loop(item) and installation() is None:
            item.add_marker(missing)


@pytest.fixture(scope="session")
def site() -> Iterator[BrowserSite]:
    with browser_site() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bench(site: BrowserSite, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserBench]:
    """Bench whose browser stays open between tests; scripts are allowed."""
    made = BrowserBench(tmp_path_factory.mktemp("bench") / "scratch", site, BrowserSettings(evaluate=True))
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(site: BrowserSite, tmp_path: Path) -> AsyncIterator[BrowserBench]:
    """Bench of its own, after which no process may be left."""
    before = children_of(os.getpid())
    made = BrowserBench(tmp_path / "scratch", site, BrowserSettings())
    yield made
    await made.close()
    assert children_of(os.getpid()) <= before
    shutil.rmtree(tmp_path, ignore_errors=True)
