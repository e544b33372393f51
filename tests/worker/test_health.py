"""Liveness: alive as long as Redis answers, deaf when it has not for too long, answered even while the loop hangs."""

import asyncio
import socket
import time

import httpx
import pytest

from infra.settings import Env, SettingsError
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.health import Pulse, served
from worker.settings import WorkerSettings


def test_a_worker_that_hears_nothing_is_deaf_until_it_hears_again() -> None:
    pulse = Pulse()
    with served(pulse, "127.0.0.1", 0, max_age_s=0.2) as port, httpx.Client() as http:
        url = f"http://127.0.0.1:{port}/health"
        assert http.get(url).json()["status"] == "ok"
        time.sleep(0.3)
        answer = http.get(url)
        assert (answer.status_code, answer.json()["status"]) == (503, "deaf")
        pulse.beat()
        assert http.get(url).status_code == 200
        assert http.get(f"http://127.0.0.1:{port}/").status_code == 404


async def test_it_beats_with_claims_and_renewals(rig: Rig) -> None:
    go = asyncio.Event()

    async def body(*_: object) -> None:
        await go.wait()

    worker = rig.worker(body, slots=1, lease_s=0.6)
    await rig.submit("x")
    await until(lambda: _true(len(worker.keeper) == 1), "the run has begun")
    for _ in range(3):
        before = worker.keeper.pulse.age_s()
        await until(lambda: _true(worker.keeper.pulse.age_s() < before), "the pulse beats while all slots are busy")  # noqa: B023
    go.set()


async def _true(value: bool) -> bool:
    return value


def test_a_port_that_is_taken_is_a_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"WORKER_HEALTH_PORT {port} cannot be had"),
            served(Pulse(), "127.0.0.1", port, 1),
        ):
            pass


def test_the_port_is_a_setting() -> None:
    assert WorkerSettings.from_env(Env({})).health_port is None
    assert WorkerSettings.from_env(Env({"WORKER_HEALTH_PORT": "8080"})).health_port == 8080
    with pytest.raises(SettingsError, match="WORKER_HEALTH_PORT"):
        WorkerSettings.from_env(Env({"WORKER_HEALTH_PORT": "0"}))
