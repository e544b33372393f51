"""Model endpoint of the chaos suite, which answers wrongly or not at all on demand."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from tests.agent_runs.script import Conversation
from tests.chaos.prompts import reply
from tests.support.model_server import ModelServer, Wire, model_server
from tests.support.model_server.answers import failure
from tests.support.scripted_http import Answer, Request

LONG_PAUSE_S = 31
"""Pause that the endpoint asks for, too long for a worker to wait: it gives the run back to the queue."""
MODELS = ("chaos-1", "chaos-2")
PRICE = {"currency": "CHF", "input": 1.0, "output": 2.0}


class ModelFault(StrEnum):
    """Fault of the endpoint. CUT and SILENT concern answers, streamed or not, at any byte."""

    ERROR = "500"
    BUSY = "429, short pause"
    BUSY_LONG = "429, long pause"
    CUT = "answer cut"
    SILENT = "silent within an answer"


class _Recorder:
    """Receives the bytes of an answer in place of a connection."""

    def __init__(self) -> None:
        self.data = b""
        self.kept = False

    def send(self, data: bytes) -> None:
        self.data += data


@dataclass
class ChaosModel:
    """Endpoint whose replies depend on the conversation alone. `fault` concerns all answers while it is set."""

    server: ModelServer
    fault: ModelFault | None = None

    @property
    def port(self) -> int:
        """Port on the loopback interface."""
        return int(self.server.url.rpartition(":")[2].partition("/")[0])

    def respond(self, request: Request) -> Answer:
        """Choose the answer to a request."""
        self.server.requests.clear()  # a long run would keep all conversations in memory
        match self.fault:
            case ModelFault.ERROR:
                return failure(500)
            case ModelFault.BUSY:
                return failure(429, retry_after="1")
            case ModelFault.BUSY_LONG:
                return failure(429, retry_after=str(LONG_PAUSE_S))
        answer = reply(Conversation(request.json))
        return answer if self.fault is None else _incomplete(answer, silent=self.fault is ModelFault.SILENT)


def model_environment(port: int) -> Mapping[str, str]:
    """Return the settings of workers that ask the endpoint at this port. Few tries and short waits let runs fail."""
    return {
        "LLM_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "LLM_MODEL": MODELS[0],
        "LLM_FALLBACKS": MODELS[1],
        "LLM_PRICES": json.dumps(dict.fromkeys(MODELS, PRICE)),
        "LLM_MAX_RETRIES": "1",
        "LLM_FIRST_TOKEN_S": "3",
        "LLM_IDLE_S": "1",
        "LLM_TIMEOUT_S": "5",
    }


def _incomplete(answer: Answer, *, silent: bool) -> Answer:
    """Return an answer that stops at a random byte: silently, or with the connection closed or reset."""

    def send(wire: Wire) -> None:
        recorder = _Recorder()
        answer(recorder)  # type: ignore[arg-type]
        wire.send(recorder.data[: random.randrange(len(recorder.data))])
        if silent:
            wire.silence()
        elif random.random() < 0.5:
            wire.reset()

    return send


@contextmanager
def chaos_model() -> Iterator[ChaosModel]:
    """Run the endpoint until the end of the context."""
    with model_server() as server:
        model = ChaosModel(server)
        server.respond = model.respond
        yield model
