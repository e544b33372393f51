"""Fixtures: a scripted model endpoint, and the adapter that asks it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from infra.contract.llm import ChatMessage, ModelChoice, ModelRequest, ToolSpec
from infra.llm_http.model import LlmHttp
from infra.llm_http.settings import LlmSettings
from tests.support.model_server import ModelServer, model_server

KEY = "sk-the-secret-of-the-tests"
WRITE = ToolSpec(
    name="file_write",
    description="Write a file.",
    parameters={
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
        "additionalProperties": False,
    },
)


def request(*models: str, **changes: Any) -> ModelRequest:
    """Return a request with one tool, for the model `m` unless others are named."""
    made: dict[str, Any] = {
        "models": [ModelChoice(name=name) for name in models or ("m",)],
        "messages": [ChatMessage(role="system", text="Be brief."), ChatMessage(role="user", text="Write a.txt")],
        "tools": [WRITE],
    }
    return ModelRequest(**made | changes)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as made:
        yield made


@asynccontextmanager
async def adapter(server: ModelServer, **changes: Any) -> AsyncIterator[LlmHttp]:
    """Yield an adapter whose pauses are short."""
    values: dict[str, Any] = {"backoff_s": 0.001, "max_retries": 1, "api_key": KEY, **changes}
    made = LlmHttp(LlmSettings(base_url=server.url, models=(), **values))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def model(server: ModelServer) -> AsyncIterator[LlmHttp]:
    async with adapter(server) as made:
        yield made
