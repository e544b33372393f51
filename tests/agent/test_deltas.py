"""Log of a reply under way: joined pieces, without those of a failed try, and nothing after its end."""

import asyncio
from typing import Any, cast

from infra.contract.events import ModelDelta
from infra.contract.llm import Delta, RetryNotice
from worker.agent.deltas import MAX_PENDING_CHARS, DeltaLog
from worker.run.emitter import LogEmitter


class Emitter:
    """Buffer that takes an event and then lets its caller wait for room."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.full = asyncio.Event()
        self.room = asyncio.Event()

    async def emit(self, data: Any, *, step: int | None = None) -> None:
        if isinstance(data, ModelDelta):
            self.texts.append(data.text)
        if not self.room.is_set():
            self.full.set()
        await self.room.wait()


async def test_pieces_of_a_failed_try_do_not_count() -> None:
    emitter = Emitter()
    emitter.room.set()
    log = DeltaLog(cast("LogEmitter", emitter), 0, 60.0, None)
    await log(Delta("text", "begin"))
    await log(Delta("text", "x" * (MAX_PENDING_CHARS - 1)))
    await log(RetryNotice(model="m", reason="cut", after_s=0.0, next_model="m"))
    await log(Delta("text", "again"))
    await log.close()
    assert emitter.texts == ["begin"]


async def test_no_piece_is_logged_after_the_end() -> None:
    emitter = Emitter()
    emitter.room.set()
    log = DeltaLog(cast("LogEmitter", emitter), 0, 0.5, None)
    await log(Delta("text", "a"))
    emitter.room.clear()
    await log(Delta("text", "b"))
    await log(Delta("reasoning", "c"))
    await emitter.full.wait()
    await log.close()
    emitter.room.set()
    await asyncio.sleep(0)
    assert emitter.texts == ["a", "b"]


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
