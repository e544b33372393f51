"""Settings of language models at the start of a worker process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redis import OwnValkey
from tests.worker.test_health_process import watched

KEY = "sk-the-secret-of-the-tests"
MODEL = {"LLM_BASE_URL": "https://models.test/v1", "LLM_MODEL": "a", "LLM_FALLBACKS": "b", "LLM_API_KEY": KEY}
pytestmark = pytest.mark.usefixtures("object_store")


async def test_a_worker_logs_which_models_are_configured(server: OwnValkey, tmp_path: Path) -> None:
    async with watched("worker", server.settings, tmp_path, **MODEL) as worker:
        log = worker.process.log()
    assert '"action":"model.configured","model":"a","fallbacks":["b"],"host":"models.test"' in log
    assert KEY not in log


def test_a_worker_does_not_start_with_invalid_settings() -> None:
    variables = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1", **MODEL, "LLM_TIMEOUT_S": "0"}
    command = [sys.executable, "-m", "worker"]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=100)
    assert (ended.returncode, ended.stderr) == (
        2,
        "swissbrain-worker: LLM_TIMEOUT_S must be between 0.1 and 3600.0, not 0\n",
    )


def test_the_start_of_a_worker_does_not_import_the_client_of_models() -> None:
    source = "import sys, worker.__main__; sys.exit('httpx' in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=100)
