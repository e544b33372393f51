"""Event streams: guarantees for a subscriber, and its isolation from the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Generator, Iterator
from typing import cast

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.gateway.support import TOKEN, Served, Subscriber, Valkey, serve
from tests.support.waiting import wait_until


def idle(served: Served) -> bool:
    streams = served.gateway.streams
    return streams.hub.clients == 0 and streams.hub.topics == 0 and streams.monitors == 0


@pytest.fixture(autouse=True)
def no_stream_remains(served: Served) -> Iterator[None]:
    yield
    wait_until(lambda: idle(served), "all streams have ended")


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_subscriber_of_a_channel_gets_its_messages(served: Served, http: httpx.Client, method: str) -> None:
    with Subscriber(served, "/subscribe/chat", method) as subscriber:
        subscriber.expect(["subscribe,chat,1"])
        http.get("/publish/chat/hello")
        http.get("/publish/other/hello")
        http.post("/publish/chat", content='{"a": "b,c"}')
        subscriber.expect(["subscribe,chat,1", "message,chat,hello", 'message,chat,{"a": "b,c"}'])
        assert subscriber.status == 200


def test_a_subscriber_of_a_pattern_gets_the_messages_of_matching_channels(served: Served, http: httpx.Client) -> None:
    with Subscriber(served, "/psubscribe/user:*") as subscriber:
        subscriber.expect(["psubscribe,user:*,1"])
        http.get("/publish/user:1/hi")
        http.get("/publish/admin:1/hi")
        http.get("/publish/user:2/ho")
        subscriber.expect(["psubscribe,user:*,1", "pmessage,user:*,user:1,hi", "pmessage,user:*,user:2,ho"])


def test_a_stream_may_have_several_channels(served: Served, http: httpx.Client) -> None:
    with Subscriber(served, "/subscribe/a/b/a") as subscriber:
        subscriber.expect(["subscribe,a,1", "subscribe,b,2"])
        http.get("/publish/b/1")
        http.get("/publish/a/2")
        subscriber.expect(["subscribe,a,1", "subscribe,b,2", "message,b,1", "message,a,2"])


def test_channel_names_in_paths_are_percent_decoded(served: Served, http: httpx.Client) -> None:
    with Subscriber(served, "/subscribe/agent%3Alogs%2F%C3%BC%20x") as subscriber:
        subscriber.expect(["subscribe,agent:logs/ü x,1"])
        http.post("/", json=["PUBLISH", "agent:logs/ü x", "m"])
        subscriber.expect(["subscribe,agent:logs/ü x,1", "message,agent:logs/ü x,m"])


@pytest.mark.parametrize(
    ("sent", "received"),
    [("a\nb", "a\nb"), ("a\r\nb\rc", "a\nb\nc"), ("\n\ndata: forged\n\n", "\n\ndata: forged\n\n"), ("", ""),
     ("id: 7", "id: 7"), ("ends\n", "ends\n"), ("a\u2028b\x85c\x0b", "a\u2028b\x85c\x0b"), ("\0", "\0")],
)  # fmt: skip
def test_a_payload_cannot_break_the_framing(served: Served, http: httpx.Client, sent: str, received: str) -> None:
    with (
        served.client() as client,
        connect_sse(client, "POST", "/subscribe/lines") as source,
        contextlib.closing(cast("Generator[ServerSentEvent]", source.iter_sse())) as events,
    ):
        assert next(events).data == "subscribe,lines,1"
        http.post("/", json=["PUBLISH", "lines", sent])
        http.post("/", json=["PUBLISH", "lines", "next"])
        event = next(events)
        assert (event.data, event.event, event.id) == (f"message,lines,{received}", "message", "")
        assert next(events).data == "message,lines,next"


def test_the_response_headers_forbid_buffering(served: Served) -> None:
    with served.client() as client, client.stream("POST", "/subscribe/c") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["cache-control"]
        assert response.headers["x-accel-buffering"] == "no"
        assert "upstash-sync-token" in response.headers


@pytest.mark.parametrize("path", ["/subscribe", "/subscribe/", "/psubscribe", "/subscribe/a//b"])
def test_a_subscription_without_a_channel_is_rejected(http: httpx.Client, path: str) -> None:
    response = http.post(path)
    assert response.status_code == 400
    assert response.json()["error"].startswith("ERR wrong number of arguments for '")


def test_a_heartbeat_keeps_the_stream_open(valkey: Valkey) -> None:
    with serve(valkey.url, heartbeat_s=0.05) as served, Subscriber(served, "/subscribe/quiet") as subscriber:
        wait_until(lambda: len(subscriber.comments) >= 3, "three heartbeats")
        assert subscriber.comments[0] == ": ping"
        assert subscriber.events == ["subscribe,quiet,1"]


def test_a_subscriber_gets_every_message_in_order_after_the_confirmation(served: Served, valkey: Valkey) -> None:
    """Subscribers join while another thread publishes: each gets consecutive numbers after its confirmation."""
    stop = threading.Event()
    published = 0

    def publish() -> None:
        nonlocal published
        with valkey.client() as client:
            while not stop.is_set():
                published += client.publish("run", str(published)) >= 0

    publisher = threading.Thread(target=publish)
    publisher.start()
    subscribers = [Subscriber(served, "/subscribe/run") for _ in range(5)]
    try:
        for subscriber in subscribers:
            wait_until(lambda s=subscriber: s.events, "the subscription is confirmed")  # type: ignore[misc]
            seen_by_all = published
        wait_until(lambda: published > seen_by_all + 500, "more was published")
    finally:
        stop.set()
        publisher.join()
    for subscriber in subscribers:
        last = f"message,run,{published - 1}"
        wait_until(lambda s=subscriber, e=last: s.events[-1] == e, "the last message arrives")  # type: ignore[misc]
        confirmation, *messages = subscriber.events
        first = int(messages[0].rsplit(",", 1)[1])
        assert confirmation == "subscribe,run,1"
        assert messages == [f"message,run,{number}" for number in range(first, published)]
        subscriber.close()


def test_a_client_may_rejoin_before_redis_has_unsubscribed(served: Served, http: httpx.Client) -> None:
    """The last client leaves and the next one joins while Redis has not yet replied to UNSUBSCRIBE."""
    for number in range(20):
        with Subscriber(served, "/subscribe/busy") as subscriber:
            wait_until(lambda s=subscriber: s.events, "confirmed")  # type: ignore[misc]
            http.get(f"/publish/busy/{number}")
            subscriber.expect(["subscribe,busy,1", f"message,busy,{number}"])


def test_many_subscribers_share_one_connection(served: Served, http: httpx.Client, valkey: Valkey) -> None:
    with contextlib.ExitStack() as stack:
        subscribers = [stack.enter_context(Subscriber(served, f"/subscribe/c{n % 5}")) for n in range(60)]
        for n, subscriber in enumerate(subscribers):
            subscriber.expect([f"subscribe,c{n % 5},1"])
        wait_until(lambda: valkey.subscriptions() == [5], "one connection has subscribed to exactly these channels")
        with valkey.client() as client:
            assert client.pubsub_numsub("c0") == [(b"c0", 1)]
        for n in range(5):
            assert http.get(f"/publish/c{n}/m{n}").json() == {"result": 1}
        for n, subscriber in enumerate(subscribers):
            subscriber.expect([f"subscribe,c{n % 5},1", f"message,c{n % 5},m{n % 5}"])


def test_no_task_remains_of_clients_that_reset_their_connection(served: Served) -> None:
    request = f"GET /subscribe/reset HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    hub = served.gateway.streams.hub
    with Subscriber(served, "/subscribe/reset") as staying, contextlib.ExitStack() as stack:
        staying.expect(["subscribe,reset,1"])
        assert hub._connection is not None
        loop = hub._connection._loop
        before = len(asyncio.all_tasks(loop))
        leaving = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(20)]
        for sock in leaving:
            sock.sendall(request)
        wait_until(lambda: hub.clients == 21, "all are subscribed")
        for sock in leaving:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        wait_until(lambda: hub.clients == 1, "all but one have left")
        wait_until(lambda: len(asyncio.all_tasks(loop)) <= before, "their tasks have ended")


def test_the_hub_unsubscribes_when_the_last_client_leaves(served: Served, valkey: Valkey) -> None:
    with valkey.client() as client:
        with Subscriber(served, "/subscribe/room") as first:
            first.expect(["subscribe,room,1"])
            with Subscriber(served, "/subscribe/room") as second:
                second.expect(["subscribe,room,1"])
            wait_until(lambda: served.gateway.streams.hub.clients == 1, "the second client has left")
            assert client.pubsub_channels() == [b"room"]
        wait_until(lambda: client.pubsub_channels() == [], "the channel is unsubscribed")
        with Subscriber(served, "/psubscribe/r*") as third:
            third.expect(["psubscribe,r*,1"])
            assert client.pubsub_numpat() == 1
        wait_until(lambda: client.pubsub_numpat() == 0, "the pattern is unsubscribed")


def test_a_slow_client_is_disconnected_and_does_not_delay_others(valkey: Valkey) -> None:
    request = f"GET /subscribe/flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with serve(valkey.url, subscriber_buffer_bytes=700_000) as served, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", served.port))
        slow.sendall(request)
        hub = served.gateway.streams.hub
        wait_until(lambda: hub.clients == 1, "the slow client is subscribed")
        with Subscriber(served, "/subscribe/flood") as quick, served.client() as http:
            wait_until(lambda: hub.clients == 2, "the quick client is subscribed")
            quick.expect(["subscribe,flood,1"])
            sent = 0
            while hub.clients == 2 and sent < 1000:
                http.post("/publish/flood", content=b"%06d" % sent + b"x" * 300_000)
                sent += 1
                wait_until(lambda n=sent: len(quick.events) > n or quick.ended, "the quick client keeps up")  # type: ignore[misc]
            assert hub.clients == 1, "the slow client was never disconnected"
            wait_until(lambda: served.gateway.streams.memory.used_bytes == 0, "nothing is held for it")
            assert not quick.ended
            assert [event[14:20] for event in quick.events[1:]] == [f"{n:06d}" for n in range(sent)]
        wait_until(lambda: _closed(slow), "the slow client sees its connection closed")


def _closed(sock: socket.socket) -> bool:
    sock.settimeout(5)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    try:
        return not sock.recv(1 << 20)
    except ConnectionResetError:
        return True


def test_a_monitor_shows_the_commands_that_redis_executes(served: Served, http: httpx.Client, valkey: Valkey) -> None:
    with Subscriber(served, "/monitor") as subscriber:
        subscriber.expect(['"OK"'])
        http.post("/", json=["SET", "k", "two\nlines"])
        wait_until(
            lambda: any('"SET" "k" "two\\nlines"' in event for event in subscriber.events),
            "the monitor shows the command",
        )
    wait_until(lambda: "monitor" not in valkey.connections(), "the monitor's connection is closed")


def test_the_number_of_monitors_is_limited(served: Served, http: httpx.Client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(Subscriber(served, "/monitor")).expect(['"OK"'])
        response = http.post("/monitor")
        assert response.status_code == 400
        assert "no more than 4 monitors" in response.json()["error"]


def test_a_subscription_that_redis_refuses_is_an_error_and_ends_no_other_stream(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        client.execute_command("ACL SETUSER", "some", "on", ">s", "~*", "+@all", "resetchannels", "&open*")
        with serve(f"redis://some:s@127.0.0.1:{own_valkey.port}") as served, served.client() as http:
            with Subscriber(served, "/subscribe/open1") as subscriber:
                subscriber.expect(["subscribe,open1,1"])
                for path in ("/subscribe/closed", "/subscribe/open1/closed/open2", "/psubscribe/*"):
                    response = http.post(path)
                    assert response.status_code == 400
                    assert response.json()["error"].startswith("NOPERM ")
                with Subscriber(served, "/subscribe/open2/open3") as second:
                    second.expect(["subscribe,open2,1", "subscribe,open3,2"])
                    client.publish("open1", "a")
                    client.publish("open3", "b")
                    subscriber.expect(["subscribe,open1,1", "message,open1,a"])
                    second.expect(["subscribe,open2,1", "subscribe,open3,2", "message,open3,b"])
            wait_until(lambda: served.gateway.streams.hub.topics == 0, "all have left")
