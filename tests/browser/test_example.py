"""Example page of the documentation, used as its readers do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from infra.settings import RedisRestSettings
from tests.browser.browser import EXAMPLE, Browser
from tests.browser.helpers import ADA, api, new_run
from tests.chaos import proxy
from tests.edge.stack import SimulatedWorker

if TYPE_CHECKING:
    from playwright import async_api as playwright

DOCUMENT = Path(__file__).parents[2] / "docs" / "browser.md"


def test_the_documentation_shows_the_files_of_the_example() -> None:
    shown = dict(re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE))
    assert shown["js"] == (EXAMPLE / "follow.js").read_text()
    assert shown["html"] == (EXAMPLE / "index.html").read_text()


async def test_the_example_page_follows_a_run(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge, browser.page() as page:
        run_id = await new_run(edge)
        await page.goto(browser.origin)
        await fill(page, edge.url, run_id)
        await worker.complete(events=2)
        await page.get_by_text("the run has ended").wait_for()
        *events, last = (await page.inner_text("pre")).splitlines()

        assert [line.split()[0:2] for line in events] == [
            ["1", "run.started"],
            ["2", "log"],
            ["3", "log"],
            ["4", "run.finished"],
        ]
        assert last == "the run has ended"

        await page.fill("[name=run]", "run_none")
        await page.click("button")
        await page.get_by_text("there is no run 'run_none'").wait_for()


async def fill(page: playwright.Page, api: str, run_id: str) -> None:
    for name, value in {"api": api, "key": ADA, "run": run_id}.items():
        await page.fill(f"[name={name}]", value)
    await page.click("button")


async def test_the_example_page_says_that_the_address_is_wrong(
    browser: Browser, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge, browser.page() as page:
        await page.goto(browser.origin)
        # Another server, which does not know POST; a wrong path of the API.
        await fill(page, browser.origin, "run_1")
        await page.get_by_text("answers with HTTP status 501; trying again").wait_for()
        await fill(page, f"{edge.url}/wrong", "run_1")
        await page.get_by_text("is not of this API: it answers with HTTP status 404").wait_for()


async def test_the_example_page_says_that_the_api_is_away_and_that_it_is_back(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge, browser.page() as page:
        run_id = await new_run(edge)
        await worker.complete(events=1)
        with proxy.ProxyHost() as host:
            to_api = host.proxy(int(edge.url.rpartition(":")[2]))
            to_api.behave(proxy.Mode.DISCONNECT)
            await page.goto(browser.origin)
            await fill(page, f"http://127.0.0.1:{to_api.port}", run_id)
            await page.get_by_text("no answer: the API is away, its address is wrong").wait_for()
            to_api.behave(proxy.Mode.PASS)
            await page.get_by_text("the run has ended").wait_for()
        lines = (await page.inner_text("pre")).splitlines()
        assert [line for line in lines if line.endswith("trying again")] == lines[:1]
        assert lines[1] == "connected again"
