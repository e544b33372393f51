"""Pieces of a reply under way in the log."""

from typing import Any, cast

from infra.contract.events import ModelDelta
from infra.contract.llm import Delta
from worker.agent.deltas import DeltaLog
from worker.run.emitter import LogEmitter


class Recorder:
    """Emitter that keeps its events."""

    def __init__(self) -> None:
        self.logged: list[tuple[object, str]] = []

    async def emit(self, data: ModelDelta, *, step: int | None = None) -> None:
        assert step == 2
        self.logged.append((data.kind, data.text))


async def test_the_end_of_a_reply_logs_the_reasoning_that_waits_and_leaves_the_text_to_the_message() -> None:
    recorder = Recorder()
    log = DeltaLog(cast("LogEmitter", recorder), 1, 1000.0, 2)
    pieces: list[tuple[Any, str]] = [("reasoning", "a"), ("reasoning", "b"), ("reasoning", "c"), ("text", "d")]
    for kind, text in pieces:
        await log(Delta(kind=kind, text=text))
    await log.end()
    await log.close()
    assert recorder.logged == [("reasoning", "a"), ("reasoning", "bc")]
