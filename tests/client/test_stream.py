"""Live logs over connections that break in every way: each event once and in order, until the end."""

import threading
from collections.abc import Iterator
from itertools import count

import pytest

from swissbrain import ApiError, Client, ProtocolError, Unreachable, log_position
from swissbrain.models import Event, Gap
from tests.client.both_clients import Connect
from tests.client.scripted_server import (
    TOKEN,
    Piece,
    ScriptedServer,
    bytewise,
    close_early,
    end,
    event,
    gap,
    ok,
    page,
    problem,
    reply,
    reset,
    silent,
    sse,
)
from tests.support.scripted_http import Answer, Wire
from tests.support.waiting import wait_until


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def client(api: ScriptedServer, connect: Connect, notes: list[str]) -> Iterator[Client]:
    with connect(api.url, TOKEN, timeout_s=20, notify=notes.append) as made:
        yield made


def follow(client: Client, after: int = 0) -> list[int | tuple[int, int]]:
    """Return the followed log: the sequence number of each event, the first and last of each gap."""
    items = client.events("run_1", after=after)
    return [item.seq if isinstance(item, Event) else (item.first, item.last) for item in items]


def test_a_log_is_followed_to_its_end(api: ScriptedServer, client: Client, notes: list[str]) -> None:
    api.then(sse(b"retry: 1000\n", event(1), event(2), b": ping\n", event(3), end(3)))
    assert follow(client) == [1, 2, 3]
    (request,) = api.requests
    assert (request.method, request.target) == ("GET", "/agent/logs/run_1/stream")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["last-event-id"] == "0"
    assert notes == []


@pytest.mark.parametrize(
    "lost",
    [
        sse(event(1), event(2)),
        sse(event(1), event(2), ends=reset),
        sse(event(1), event(2), ends=close_early),
        sse(event(1), event(2), event(3)[:-1], ends=reset),
        sse(event(1), event(2), event(3)[:-1]),
        sse(event(1), event(2), event(3)[:-2], ends=close_early),
        sse(event(1), event(2), event(3)[:20]),
    ],
    ids=["end", "reset", "closed", "reset before the event's end", "event's end lacks", "no line end", "half a line"],
)
def test_a_lost_connection_resumes_after_the_last_complete_event(
    api: ScriptedServer, client: Client, pauses: list[float], lost: Answer
) -> None:
    api.then(lost, sse(event(3), end(3)))
    assert follow(client) == [1, 2, 3]
    assert api.last_ids == ["0", "2"]
    assert len(pauses) == 1
    assert pauses[0] <= 1


@pytest.mark.parametrize("away", [reset, close_early, problem(503, "no Redis"), page(502), page(429)])
def test_the_stream_survives_an_unreachable_api(
    api: ScriptedServer, client: Client, pauses: list[float], notes: list[str], away: Answer
) -> None:
    api.then(sse(event(1), ends=reset), away, away, sse(event(2), ends=reset), away, sse(event(3), end(3)))
    assert follow(client) == [1, 2, 3]
    assert api.last_ids == ["0", "1", "1", "1", "2", "2"]
    assert len(pauses) == 5
    losses = [note for note in notes if note.endswith("; trying again")]
    assert notes == [losses[0], "connected again", losses[1], "connected again"]


def test_retry_after_delays_the_next_connection(api: ScriptedServer, client: Client, pauses: list[float]) -> None:
    api.then(page(503, retry_after="17"), problem(429, "slowly"), sse(end(0)))
    assert follow(client) == []
    assert pauses[0] == 17
    assert pauses[1] <= log_position.MAX_PAUSE_S


def test_connections_without_events_back_off(api: ScriptedServer, client: Client, pauses: list[float]) -> None:
    api.then(*[sse(ends=reset)] * 12, sse(end(0)))
    assert follow(client) == []
    assert pauses[0] <= 0.1
    assert all(log_position.MAX_PAUSE_S / 2 <= pause <= log_position.MAX_PAUSE_S for pause in pauses[8:])


@pytest.mark.parametrize("field", ["0", "-5", "-" + "9" * 400, "9" * 400, "soon", "2000"])
def test_the_retry_field_is_bounded(api: ScriptedServer, client: Client, pauses: list[float], field: str) -> None:
    api.then(sse(f"retry: {field}\n".encode(), event(1)), sse(event(2), end(2)))
    assert follow(client) == [1, 2]
    assert log_position.MIN_PAUSE_S <= pauses[0] <= log_position.MAX_PAUSE_S
    assert field != "2000" or pauses == [2]


def test_repeated_events_are_dropped(api: ScriptedServer, client: Client, pauses: list[float]) -> None:
    api.then(
        sse(event(1), event(1), event(2), event(1), event(2), ends=reset),
        sse(event(1), event(2), event(3), gap(1, 2), event(3), end(3)),
    )
    assert follow(client) == [1, 2, 3]


def test_a_new_connection_fetches_missing_events(
    api: ScriptedServer, client: Client, pauses: list[float], notes: list[str]
) -> None:
    api.then(sse(event(1), event(3), event(4)), sse(event(2), event(4)), sse(event(3), event(4)), sse(end(4)))
    assert follow(client) == [1, 2, 3, 4]
    assert api.last_ids == ["0", "1", "2", "4"]
    assert "lacks the events 2 to 2" in notes[0]


def test_each_event_resets_holes_and_losses(api: ScriptedServer, client: Client, pauses: list[float]) -> None:
    api.then(*(sse(event(seq), event(seq + 2), ends=reset) for seq in range(1, 20)), sse(event(20), end(20)))
    assert follow(client) == [*range(1, 21)]
    assert len(pauses) == 19
    assert max(pauses) <= log_position.MIN_PAUSE_S


@pytest.mark.parametrize("broken", [sse(event(1), event(3)), sse(event(1), gap(3, 5)), sse(event(1), end(2))])
def test_events_that_stay_missing_are_a_protocol_error(
    api: ScriptedServer, client: Client, pauses: list[float], broken: Answer
) -> None:
    api.always = broken
    got: list[Event | Gap] = []
    with pytest.raises(ProtocolError, match=r"the stream lacks the events 2 to 2$"):
        got.extend(client.events("run_1"))
    assert [item.seq for item in got if isinstance(item, Event)] == [1]
    assert len(api.requests) == log_position.MAX_HOLES


def test_an_end_before_the_last_event_is_ignored(api: ScriptedServer, client: Client, pauses: list[float]) -> None:
    api.then(sse(event(1), end(3)), sse(event(2), event(3), end(3)))
    assert follow(client) == [1, 2, 3]


def test_a_gap_is_yielded_once(api: ScriptedServer, client: Client, pauses: list[float]) -> None:
    api.then(sse(gap(1, 7), event(8), ends=reset), sse(gap(1, 7), event(9), ends=reset), sse(gap(10, 12), ends=reset))
    api.then(reply(204))
    assert follow(client) == [(1, 7), 8, 9, (10, 12)]
    assert api.last_ids == ["0", "8", "9", "12"]


def test_no_content_ends_the_stream(api: ScriptedServer, client: Client, pauses: list[float], notes: list[str]) -> None:
    api.then(reset, reply(204))
    assert follow(client, after=7) == []
    assert api.last_ids == ["7", "7"]
    assert notes[1:] == ["connected again"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_stream_may_arrive_in_any_chunks(api: ScriptedServer, client: Client, line_end: bytes) -> None:
    text = "ä😀\u2028\u2029\x85\x0b\x0c\x1c\x1d\ufeff é"
    whole = b"\xef\xbb\xbf: hello\nretry: 5\nid\nunknown: x\n" + event(1, text=text) + b":\n\n\n" + event(2) + end(2)
    raw = whole.removeprefix(b"\xef\xbb\xbf").replace(b"\n", line_end)
    for pieces in ([raw], bytewise(raw), [raw[at : at + 7] for at in range(0, len(raw), 7)]):
        api.then(sse(*pieces))
        first, second = client.events("run_1")
        assert isinstance(first, Event)
        assert first.data == {"text": text}
        assert isinstance(second, Event)
        assert second.seq == 2


def test_large_and_many_events_are_read(api: ScriptedServer, client: Client) -> None:
    api.then(sse(event(1, text="x" * 3_000_000), *(event(seq) for seq in range(2, 3000)), end(2999)))
    assert follow(client) == [*range(1, 3000)]


def test_data_over_several_lines_is_one_event(api: ScriptedServer, client: Client) -> None:
    api.then(sse(b'data: {"seq": 1, "ts": 1,\ndata: "type": "x"}\n\n', end(1)))
    assert follow(client) == [1]


def test_a_silent_connection_is_dead(
    api: ScriptedServer, client: Client, pauses: list[float], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("_sync", "_async"):
        monkeypatch.setattr(f"swissbrain.{kind}.stream.SILENCE_S", 2.0)
    api.then(sse(event(1), ends=silent), silent, sse(event(2), end(2)))
    assert follow(client) == [1, 2]
    assert api.last_ids == ["0", "1", "1"]
    assert notes[0] == f"cannot reach the API at {api.url}: timed out; trying again"


def test_pings_keep_a_quiet_connection_alive(
    api: ScriptedServer, client: Client, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("_sync", "_async"):
        monkeypatch.setattr(f"swissbrain.{kind}.stream.SILENCE_S", 8.0)
    quiet = threading.Event()

    def pause(_: object) -> None:
        quiet.wait(0.9)

    quietly: list[Piece] = [pause, b": ping\n"]
    api.then(sse(event(1), *quietly * 10, event(2), end(2)))
    assert follow(client) == [1, 2]
    assert notes == []


def test_an_api_that_stays_unreachable_is_an_error_after_patience_s(
    api: ScriptedServer, client: Client, pauses: list[float], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(1000.0, 90.0)
    monkeypatch.setattr("swissbrain.log_position.monotonic", lambda: next(clock))
    api.then(sse(event(1), ends=reset))
    api.always = problem(503, "no Redis")
    with pytest.raises(Unreachable, match=r"^no Redis$"):
        follow(client)
    assert 3 <= len(api.requests) <= 6
    assert len(notes) == 1


def test_a_slow_reader_causes_no_outage(api: ScriptedServer, connect: Connect) -> None:
    api.then(sse(event(1), event(2), ends=reset), sse(event(3), end(3)))
    with connect(api.url, TOKEN, patience_s=0.2) as client:
        got = []
        items = client.events("run_1")
        threading.Event().wait(0.3)
        for item in items:
            got.append(item)
            threading.Event().wait(0.3)
    assert len(got) == 3


def test_the_first_loss_is_final_without_patience(api: ScriptedServer, connect: Connect, notes: list[str]) -> None:
    api.then(sse(event(1), ends=reset))
    with connect(api.url, TOKEN, patience_s=0, notify=notes.append) as client, pytest.raises(Unreachable):
        follow(client)
    assert notes == []


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_a_refusal_ends_the_stream(api: ScriptedServer, client: Client, pauses: list[float], status: int) -> None:
    api.then(sse(event(1), ends=reset), problem(status, "no more"))
    with pytest.raises(ApiError, match=r"^no more$") as caught:
        follow(client)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "answer",
    [
        page(),
        reply(302, location="/login"),
        ok({"events": []}),
        sse(b"data: hello\n\n"),
        sse(b'data: {"seq": "1"}\n\n'),
        sse(b"data: []\n\n"),
        sse(b"event: gap\ndata: {}\n\n"),
        sse(b"event: end\ndata: \xff\n\n"),
        reply(200, b"not gzip", "text/event-stream", content_encoding="gzip"),
    ],
)
def test_a_response_that_is_no_log_is_a_protocol_error(api: ScriptedServer, client: Client, answer: Answer) -> None:
    api.then(answer)
    with pytest.raises(ProtocolError, match=r"does not (stream|answer) as this API does"):
        follow(client)
    assert len(api.requests) == 1


def test_events_of_later_releases_are_accepted(api: ScriptedServer, client: Client) -> None:
    new = b'event: hint\ndata: what\n\nid: 1\ndata: {"seq": 1, "ts": 1, "type": "new", "x": [1]}\n\n'
    api.then(sse(new, b"event: hint\n\n", b"data\n\n", end(1)))
    assert follow(client) == [1]


def test_a_reader_that_stops_closes_the_connection(api: ScriptedServer, client: Client) -> None:
    left = threading.Event()

    def wait(wire: Wire) -> None:
        wire.silence()
        left.set()

    api.then(sse(event(1), event(2), wait))
    for _ in client.events("run_1"):
        break
    wait_until(left.is_set, "the connection is closed")
