"""Liveness endpoint: 200 while Redis replies, 503 once it has not replied for too long."""

import asyncio
import socket
import struct
import time
from pathlib import Path

import httpx
import pytest

import worker.__main__
from infra.settings import Env, SettingsError
from tests.support.waiting import until, wait_until
from tests.worker.rig import Rig
from worker.fitness import Fitness
from worker.health import Heartbeat, serve_health
from worker.settings import WorkerSettings


def test_the_endpoint_says_unresponsive_until_redis_replies_again() -> None:
    heartbeat = Heartbeat()
    with serve_health(heartbeat, Fitness(), "127.0.0.1", 0, max_age_s=0.2) as port, httpx.Client() as http:
        url = f"http://127.0.0.1:{port}/health"

        def answers(code: int, status: str, *, replies: bool) -> bool:
            if replies:
                heartbeat.record()
            answer = http.get(url)
            return (answer.status_code, answer.json()["status"]) == (code, status)

        for _ in range(2):
            wait_until(lambda: answers(200, "ok", replies=True), "the status is ok")
            wait_until(lambda: answers(503, "unresponsive", replies=False), "the status is unresponsive")
        assert http.get(f"http://127.0.0.1:{port}/").status_code == 404
        assert http.get(f"http://127.0.0.1:{port}/metrics?name=x").status_code == 200
        wait_until(lambda: http.head(url).status_code == 503, "a HEAD is answered as a GET")
        assert http.head(url).content == b""


def test_an_unfit_worker_is_alive_and_not_ready() -> None:
    async def check() -> None:
        return

    with serve_health(Heartbeat(), Fitness({"sandbox": check}), "127.0.0.1", 0, max_age_s=60) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        answer = httpx.get(f"http://127.0.0.1:{port}/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "checking")
    with serve_health(Heartbeat(), Fitness(), "127.0.0.1", 0, max_age_s=60) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200


def test_a_client_that_leaves_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    reset = struct.pack("ii", 1, 0)
    with serve_health(Heartbeat(), Fitness(), "127.0.0.1", 0, max_age_s=60) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    assert capfd.readouterr().err == ""


async def test_claims_and_renewals_record_a_heartbeat(rig: Rig) -> None:
    go = asyncio.Event()

    async def body(*_: object) -> None:
        await go.wait()

    worker = rig.worker(body, slots=1, renew_s=0.2)
    await rig.submit("x")
    await until(lambda: _true(len(worker.keeper) == 1), "the run has begun")

    def last_beat() -> float:
        return round(time.monotonic() - worker.keeper.heartbeat.age_s(), 2)

    for _ in range(3):
        before = last_beat()
        await until(lambda: _true(last_beat() > before), "a heartbeat is recorded while all slots are busy")  # noqa: B023
    go.set()


async def _true(value: bool) -> bool:
    return value


def test_a_port_in_use_is_a_settings_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"WORKER_HEALTH_PORT: cannot listen on 127.0.0.1:{port}"),
            serve_health(Heartbeat(), Fitness(), "127.0.0.1", port, 1),
        ):
            pass


def test_the_port_is_read_from_the_environment() -> None:
    assert WorkerSettings.from_env(Env({})).health_port is None
    assert WorkerSettings.from_env(Env({"WORKER_HEALTH_PORT": "8080"})).health_port == 8080
    with pytest.raises(SettingsError, match="WORKER_HEALTH_PORT"):
        WorkerSettings.from_env(Env({"WORKER_HEALTH_PORT": "0"}))


@pytest.mark.parametrize(("lease_s", "max_age_s"), [(15, 300), (720, 300), (3600, 1260)])
def test_the_maximum_age_exceeds_the_time_between_two_renewals(
    monkeypatch: pytest.MonkeyPatch, lease_s: float, max_age_s: float
) -> None:
    """A busy worker sends nothing but renewals."""
    given: list[float] = []
    monkeypatch.setattr(worker.__main__, "serve_health", lambda *args: given.append(args[4]))
    settings = WorkerSettings("w", 1, lease_s, 5.0, Path(), health_port=1)
    worker.__main__._health(Heartbeat(), Fitness(), settings, None)
    assert given == [max_age_s]
