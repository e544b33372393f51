"""Redis killed, restarted or silent, and the gateway stopped: no command runs twice and no request hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from upstash_redis import Redis
from upstash_redis.errors import UpstashError

from tests.gateway.support import TOKEN, Served, Subscriber, Valkey, serve
from tests.support.redis import free_port
from tests.support.waiting import wait_until

UNREACHABLE = "ERR Redis is not reachable; the command was not sent"


def works(http: httpx.Client) -> bool:
    """Return True if the gateway executes a command."""
    return http.get("/ping").status_code == 200


def test_requests_fail_with_503_while_redis_is_not_reachable() -> None:
    with serve(f"redis://127.0.0.1:{free_port()}") as served, served.client() as http:
        for response in (http.get("/get/k"), http.post("/multi-exec", json=[["PING"]]), http.post("/subscribe/c")):
            assert response.status_code == 503
            assert response.json() == {"error": UNREACHABLE}
        response = http.post("/pipeline", json=[["PING"], ["PING"]])
        assert (response.status_code, response.json()) == (503, [{"error": UNREACHABLE}] * 2)
        response = http.get("/ping", headers={"Upstash-Response-Format": "resp2"})
        assert (response.status_code, response.text) == (503, f"-{UNREACHABLE}\r\n")
        assert http.post("/monitor").status_code == 503


def test_the_sdk_raises_while_redis_is_not_reachable() -> None:
    with serve(f"redis://127.0.0.1:{free_port()}") as served, Redis(served.url, TOKEN) as sdk:
        with pytest.raises(UpstashError, match="not reachable"):
            sdk.get("k")
        pipeline = sdk.pipeline()
        pipeline.get("k")
        with pytest.raises(UpstashError, match="not reachable"):
            pipeline.exec()


def test_the_gateway_recovers_when_redis_is_killed_and_started_again(own_valkey: Valkey) -> None:
    with serve(own_valkey.url) as served, served.client() as http:
        assert works(http)
        with Subscriber(served, "/subscribe/c") as subscriber, Subscriber(served, "/monitor") as monitor:
            subscriber.expect(["subscribe,c,1"])
            # The monitor may also show the SUBSCRIBE, depending on which of the two streams was opened first.
            wait_until(lambda: monitor.events[:1] == ['"OK"'], "the monitor has started")
            own_valkey.kill()
            wait_until(lambda: subscriber.ended and monitor.ended, "the streams end")
            assert subscriber.clean_end
            assert monitor.clean_end
        assert http.get("/get/k").status_code == 503
        own_valkey.start()
        assert works(http), "the first request after the restart is served"
        with Subscriber(served, "/subscribe/c") as subscriber:
            subscriber.expect(["subscribe,c,1"])
            http.get("/publish/c/again")
            subscriber.expect(["subscribe,c,1", "message,c,again"])


def test_idle_connections_that_redis_closed_are_replaced(own_valkey: Valkey) -> None:
    with serve(own_valkey.url) as served, served.client() as http, own_valkey.client() as client:
        for _ in range(5):
            assert works(http)
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
            wait_until(lambda: served.gateway.pool.connections == 0, "the gateway saw its connections close")
            assert http.get("/set/k/v").json() == {"result": "OK"}


def test_a_restart_under_load_causes_errors_but_no_wrong_reply(own_valkey: Valkey) -> None:
    stop = threading.Event()
    wrong: list[str] = []
    served_count = [0]

    def send_requests(number: int) -> None:
        with served.client() as http:
            while not stop.is_set():
                response = http.get(f"/echo/{number}")
                if response.status_code == 200:
                    served_count[0] += 1
                if response.status_code not in (200, 503) or response.json().get("result", str(number)) != str(number):
                    wrong.append(response.text)

    with serve(own_valkey.url) as served:
        threads = [threading.Thread(target=send_requests, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                before = served_count[0]
                wait_until(lambda n=before: served_count[0] > n + 50, "requests are served")  # type: ignore[misc]
                own_valkey.kill()
                own_valkey.start()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert wrong == []


class ScriptedRedis:
    """Fake Redis. `answer` gets the number of a connection and its bytes, and returns the reply, None to close."""

    def __init__(self, answer: Callable[[int, bytes], bytes | None]) -> None:
        self.received: list[bytes] = []
        self.accepted = 0
        self.answered = 0
        self._answer = answer
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._sock.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(self.accepted, connection)).start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                if b"SETNAME" in data:
                    connection.sendall(b"+OK\r\n")
                    continue
                self.received.append(data)
                answer = self._answer(number, data)
                if answer is None:
                    return
                connection.sendall(answer)
                self.answered += 1

    def close(self) -> None:
        for sock in (self._sock, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def scripted_redis(
    answer: Callable[[int, bytes], bytes | None], **options: float
) -> Iterator[tuple[ScriptedRedis, Served, httpx.Client]]:
    script = ScriptedRedis(answer)
    try:
        with serve(script.url, **options) as served, served.client() as http:
            yield script, served, http
    finally:
        script.close()


def test_a_command_that_may_have_run_is_not_sent_again() -> None:
    with scripted_redis(lambda *_: None) as (script, _, http):
        response = http.get("/incr/k")
        assert response.status_code == 503
        assert response.json()["error"].endswith("the command may have been executed")
        assert len(script.received) == 1


def test_an_interrupted_pipeline_keeps_the_replies_received_so_far() -> None:
    with scripted_redis(lambda *_: b":1\r\n:2\r\n") as (script, _, http):
        replies: list[list[dict[str, object]]] = []
        client = threading.Thread(
            target=lambda: replies.append(http.post("/pipeline", json=[["INCR", "k"]] * 4).json())
        )
        client.start()
        wait_until(lambda: script.answered, "two of four replies were sent")
        script.close()
        client.join()
    [[first, second, *lost]] = replies
    assert (first, second) == ({"result": 1}, {"result": 2})
    assert ["may have been executed" in str(reply["error"]) for reply in lost] == [True, True]


def test_a_command_without_a_reply_fails_after_the_timeout() -> None:
    with scripted_redis(lambda *_: b"", command_timeout_s=0.1) as (_, served, http):
        response = http.get("/get/k")
        assert response.status_code == 503
        assert "no answer from Redis within 0.1 s" in response.json()["error"]
        assert served.gateway.pool.connections == 0


def test_a_silent_idle_connection_is_replaced_before_a_command_is_sent() -> None:
    """The first connection replies once and then never, as if a firewall had dropped it."""

    def answer(number: int, _: bytes) -> bytes:
        return b"" if number == 1 and script.answered else b"$1\r\nv\r\n"

    with scripted_redis(answer, idle_check_s=0, connect_timeout_s=3) as (script, served, http):
        assert http.get("/get/a").json() == {"result": "v"}
        assert http.get("/get/b").json() == {"result": "v"}
        assert script.accepted == 2
        assert [b"PING" in data for data in script.received] == [False, True, False]
        assert served.gateway.pool.connections == 1


def test_a_request_waits_for_a_busy_pool_no_longer_than_the_timeout() -> None:
    options = {"pool_size": 1, "pool_timeout_s": 0.1, "command_timeout_s": 20}
    with scripted_redis(lambda *_: b"", **options) as (script, served, http):

        def send_request() -> None:
            with served.client() as client:
                assert client.get("/get/k").status_code == 503

        waiting = [threading.Thread(target=send_request) for _ in range(64)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: b"".join(script.received).count(b"get") == 64, "the pool is full")
        response = http.get("/get/k")
        assert response.status_code == 503
        text = "ERR gateway is busy: no connection to Redis became free in time; the command was not sent"
        assert response.json() == {"error": text}
        script.close()
        for thread in waiting:
            thread.join()


def test_a_server_that_does_not_speak_redis_is_an_outage() -> None:
    with scripted_redis(lambda *_: b"HTTP/1.1 200 OK\r\n\r\n") as (_, _, http):
        assert http.get("/get/k").status_code == 503
        assert http.get("/get/k", headers={"Upstash-Response-Format": "resp2"}).status_code == 503


def test_the_error_for_a_wrong_password_does_not_show_it(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        client.config_set("requirepass", "right")
    with serve(own_valkey.url.replace("//", "//:wrong@")) as served, served.client() as http:
        response = http.get("/get/k")
        assert response.status_code == 503
        assert response.json()["error"] == (
            "ERR Redis did not accept the gateway's login (WRONGPASS); the command was not sent"
        )
    with serve(own_valkey.url.replace("//", "//default:right@") + "/3") as served, served.client() as http:
        assert http.get("/set/in-db-3/x").json() == {"result": "OK"}
        with Subscriber(served, "/subscribe/c") as subscriber:
            subscriber.expect(["subscribe,c,1"])
    with own_valkey.client(password="right", db=3) as client:
        assert client.get("in-db-3") == b"x"


def test_a_shutdown_ends_streams_and_closes_connections(own_valkey: Valkey) -> None:
    with serve(own_valkey.url) as served:
        with served.client() as http:
            assert works(http)
        with Subscriber(served, "/subscribe/c") as subscriber, Subscriber(served, "/monitor") as monitor:
            subscriber.expect(["subscribe,c,1"])
            # The monitor may also show the SUBSCRIBE, depending on which of the two streams was opened first.
            wait_until(lambda: monitor.events[:1] == ['"OK"'], "the monitor has started")
            served.stop()
            wait_until(lambda: subscriber.ended and monitor.ended, "the streams end")
            assert subscriber.clean_end
    wait_until(lambda: own_valkey.connections() == [], "all connections are closed")


def test_a_shutdown_responds_to_a_command_under_way() -> None:
    """A client without a response would send its command again, although it may have run."""
    with scripted_redis(lambda *_: b"", shutdown_timeout_s=0.2) as (script, served, http):
        responses: list[httpx.Response] = []
        client = threading.Thread(target=lambda: responses.append(http.get("/incr/k")))
        client.start()
        wait_until(lambda: script.received, "the command was sent")
        served.stop()
        client.join()
    [response] = responses
    assert response.status_code == 503
    assert response.json()["error"].endswith("the command may have been executed")


def test_the_health_check_fails_while_redis_does_not_execute_commands(own_valkey: Valkey) -> None:
    with serve(own_valkey.url) as served:
        response = httpx.get(f"{served.url}/_health", trust_env=False)
        assert (response.status_code, response.json()) == (200, {"result": "OK"})
        with own_valkey.client() as client:
            client.config_set("requirepass", "x")
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
        wait_until(lambda: served.gateway.pool.connections == 0, "the gateway saw its connection close")
        assert httpx.get(f"{served.url}/_health", trust_env=False).status_code == 503
        own_valkey.kill()
        assert httpx.get(f"{served.url}/_health", trust_env=False).status_code == 503
        own_valkey.start()
