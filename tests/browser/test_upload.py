"""Upload of an input file by a page, with the code and the bucket's rule of the documentation."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from edge_api.settings import ApiSettings
from infra.settings import RedisRestSettings, S3Settings
from infra.workspace import Workspaces
from infra.workspace.client import build_client
from tests.browser.browser import Browser
from tests.edge.stack import TOKENS, SimulatedWorker, client, create, serve
from tests.support.servers import s3_fixture

DOCUMENT = Path(__file__).parents[2] / "docs" / "browser.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

s3_settings = s3_fixture("module")


@pytest_asyncio.fixture(loop_scope="session")
async def workspaces(s3_settings: S3Settings) -> AsyncIterator[Workspaces]:
    made = Workspaces(s3_settings)
    await made.ensure_bucket()
    yield made
    await asyncio.to_thread(made.close)


async def test_a_page_uploads_a_file_with_the_documented_code(
    browser: Browser,
    worker: SimulatedWorker,
    rest_settings: RedisRestSettings,
    s3_settings: S3Settings,
    workspaces: Workspaces,
) -> None:
    blocks = BLOCK.findall(DOCUMENT.read_text())
    (function,) = (text for kind, text in blocks if kind == "javascript")
    (rule,) = (text for kind, text in blocks if "CORSRules" in text)
    bucket = build_client(s3_settings)
    bucket.put_bucket_cors(
        Bucket=s3_settings.bucket,
        CORSConfiguration=json.loads(rule.replace("https://app.example.ch", browser.origin)),
    )
    bucket.close()
    settings = ApiSettings(cors_origins=(browser.origin,))
    async with serve(rest_settings, workspaces, settings) as edge, client(edge, "ada") as ada, browser.page() as page:
        run_id = await create(ada, start=False)
        await page.goto(browser.origin)
        await page.add_script_tag(content=function)
        for path, text in (("ä b/100%.csv", "a,b\n1,2\n"), ("empty", "")):
            code = "([api, token, run, path, text]) => upload(api, token, run, path, new Blob([text]))"
            await page.evaluate(code, [edge.url, TOKENS["ada"], run_id, path, text])
        assert (await ada.post(f"/agent/runs/{run_id}/start")).json()["status"] == "queued"
        stored = workspaces.run("ada", run_id, 1, await worker.store.files(run_id))
        assert await stored.read("ä b/100%.csv") == b"a,b\n1,2\n"
        assert await stored.read("empty") == b""
