"""Redis that has become a replica, that is full, or that answers only a part in time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from infra.gateway import pool
from tests.gateway.support import Served, Subscriber, Valkey, serve
from tests.gateway.test_outage import scripted_redis
from tests.support.redis import free_port
from tests.support.waiting import wait_until

RESP2 = {"Upstash-Response-Format": "resp2"}


@pytest.fixture
def replica(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Gateway of a Redis that has become a replica after the gateway connected to it."""
    monkeypatch.setattr(pool, "_MIN_AGE_S", 0)
    with serve(own_valkey.url) as served, served.client() as http:
        assert http.get("/set/k/-READONLY%20x").status_code == 200
        assert http.get("/get/k", headers=RESP2).status_code == 200
        with own_valkey.client() as client:
            client.replicaof("127.0.0.1", free_port())
        yield served


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/", ["SET", "k", "v"], {}),
        ("/", ["SET", "k", "v"], RESP2),
        ("/", ["EVAL", "return redis.call('SET', 'k', 'v')", 0], {}),
        ("/pipeline", [["GET", "k"], ["SET", "k", "v"]], {}),
        ("/multi-exec", [["SET", "k", "v"]], {}),
    ],
)
def test_after_a_refused_write_new_connections_are_made(
    replica: Served, path: str, body: list[object], headers: dict[str, str]
) -> None:
    """Old connections lead to the old master for ever; after a failover the address leads to the new one."""
    used = replica.gateway.raw_pool if headers else replica.gateway.pool
    with replica.client() as http:
        assert "READONLY You can't write" in http.post(path, json=body, headers=headers).text
        before = used.generation
        for _ in range(3):
            assert http.get("/get/k", headers=headers).status_code == 200, "reads are served, whatever they return"
        assert used.generation == before + 1


def test_a_redis_without_free_connections_is_named(own_valkey: Valkey) -> None:
    with own_valkey.client() as client, serve(own_valkey.url) as served, served.client() as http, ExitStack() as stack:
        client.config_set("maxclients", 8)
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", own_valkey.port))) for _ in range(8)]
        wait_until(lambda: client.info("stats")["rejected_connections"] > 0, "Redis is full")
        for response in (http.get("/incr/n"), http.get("/incr/n", headers=RESP2), http.post("/subscribe/c")):
            assert response.status_code == 503
            assert "ERR Redis did not accept the connection (ERR max number of clients reached" in response.text
            assert "; the command was not sent" in response.text
        for sock in sockets:
            sock.close()
        wait_until(lambda: http.get("/incr/n").status_code == 200, "a connection is free")
        with Subscriber(served, "/subscribe/c") as subscriber:
            subscriber.expect(["subscribe,c,1"])
        assert client.get("n") == b"1"


def test_a_pipeline_that_takes_too_long_keeps_the_replies_received_so_far() -> None:
    with scripted_redis(lambda *_: b":1\r\n:2\r\n", command_timeout_s=3) as (_, _, http):
        response = http.post("/pipeline", json=[["INCR", "n"]] * 4)
        assert response.status_code == 200
        error = {"error": "ERR no answer from Redis within 3 s; the command may have been executed"}
        assert response.json() == [{"result": 1}, {"result": 2}, error, error]


def test_a_user_who_may_not_use_transactions_learns_that_commands_may_have_run(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        client.execute_command("ACL SETUSER", "single", "on", ">s", "~*", "+@all", "-multi")
    with serve(f"redis://single:s@127.0.0.1:{own_valkey.port}") as served, served.client() as http:
        response = http.post("/multi-exec", json=[["INCR", "n"]])
        assert response.status_code == 400
        assert "NOPERM" in response.json()["error"]
        assert response.json()["error"].endswith("; the command may have been executed")
        assert http.get("/get/n").json() == {"result": "1"}
