"""Following a log over connections that break in every way: each event once and in order, and an end."""

import threading
from collections.abc import Iterator
from itertools import count

import pytest

from swissbrain import ApiError, Client, ProtocolError, Unreachable, stream
from swissbrain.models import Event, Gap
from tests.client.stand_in import (
    TOKEN,
    Answer,
    Piece,
    StandIn,
    Wire,
    bytewise,
    cut,
    end,
    event,
    gap,
    hang_up,
    ok,
    page,
    problem,
    reply,
    silent,
    sse,
)
from tests.support.waiting import wait_until


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def client(api: StandIn, notes: list[str]) -> Iterator[Client]:
    with Client(api.url, TOKEN, timeout_s=20, notify=notes.append) as made:
        yield made


def told(client: Client, after: int = 0) -> list[int | tuple[int, int]]:
    """What a followed log gives: the number of each event, the first and last of each gap."""
    items = client.events("run_1", after=after)
    return [item.seq if isinstance(item, Event) else (item.first, item.last) for item in items]


def test_a_log_is_followed_to_its_end(api: StandIn, client: Client, notes: list[str]) -> None:
    api.then(sse(b"retry: 1000\n", event(1), event(2), b": ping\n", event(3), end(3)))
    assert told(client) == [1, 2, 3]
    (request,) = api.requests
    assert (request.method, request.target) == ("GET", "/agent/logs/run_1/stream")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["last-event-id"] == "0"
    assert notes == []


@pytest.mark.parametrize(
    "lost",
    [
        sse(event(1), event(2)),
        sse(event(1), event(2), ends=cut),
        sse(event(1), event(2), ends=hang_up),
        sse(event(1), event(2), event(3)[:-1], ends=cut),
        sse(event(1), event(2), event(3)[:-1]),
        sse(event(1), event(2), event(3)[:-2], ends=hang_up),
        sse(event(1), event(2), event(3)[:20]),
    ],
    ids=["end", "reset", "closed", "reset before the event's end", "event's end lacks", "no line end", "half a line"],
)
def test_a_lost_connection_goes_on_after_the_last_whole_event(
    api: StandIn, client: Client, pauses: list[float], lost: Answer
) -> None:
    api.then(lost, sse(event(3), end(3)))
    assert told(client) == [1, 2, 3]
    assert api.last_ids == ["0", "2"]
    assert len(pauses) == 1
    assert pauses[0] <= 1


@pytest.mark.parametrize("away", [cut, hang_up, problem(503, "no Redis"), page(502), page(429)])
def test_the_api_may_be_away_for_a_while(
    api: StandIn, client: Client, pauses: list[float], notes: list[str], away: Answer
) -> None:
    api.then(sse(event(1), ends=cut), away, away, sse(event(2), ends=cut), away, sse(event(3), end(3)))
    assert told(client) == [1, 2, 3]
    assert api.last_ids == ["0", "1", "1", "1", "2", "2"]
    assert len(pauses) == 5
    losses = [note for note in notes if note.endswith("; trying again")]
    assert notes == [losses[0], "connected again", losses[1], "connected again"]


def test_it_comes_back_no_sooner_than_asked(api: StandIn, client: Client, pauses: list[float]) -> None:
    api.then(page(503, retry_after="17"), problem(429, "slowly"), sse(end(0)))
    assert told(client) == []
    assert pauses[0] == 17
    assert pauses[1] <= stream.MAX_PAUSE_S


def test_connections_that_bring_nothing_are_made_ever_more_slowly(
    api: StandIn, client: Client, pauses: list[float]
) -> None:
    api.then(*[sse(ends=cut)] * 12, sse(end(0)))
    assert told(client) == []
    assert pauses[0] <= 0.1
    assert all(stream.MAX_PAUSE_S / 2 <= pause <= stream.MAX_PAUSE_S for pause in pauses[8:])


@pytest.mark.parametrize("said", ["0", "-5", "-" + "9" * 400, "9" * 400, "soon", "2000"])
def test_the_pause_that_the_api_asks_for_is_kept_within_reason(
    api: StandIn, client: Client, pauses: list[float], said: str
) -> None:
    api.then(sse(f"retry: {said}\n".encode(), event(1)), sse(event(2), end(2)))
    assert told(client) == [1, 2]
    assert stream.MIN_PAUSE_S <= pauses[0] <= stream.MAX_PAUSE_S
    assert said != "2000" or pauses == [2]


def test_nothing_comes_twice(api: StandIn, client: Client, pauses: list[float]) -> None:
    api.then(
        sse(event(1), event(1), event(2), event(1), event(2), ends=cut),
        sse(event(1), event(2), event(3), gap(1, 2), event(3), end(3)),
    )
    assert told(client) == [1, 2, 3]


def test_missing_events_are_fetched_anew(api: StandIn, client: Client, pauses: list[float], notes: list[str]) -> None:
    api.then(sse(event(1), event(3), event(4)), sse(event(2), event(4)), sse(event(3), event(4)), sse(end(4)))
    assert told(client) == [1, 2, 3, 4]
    assert api.last_ids == ["0", "1", "2", "4"]
    assert "lacks the events 2 to 2" in notes[0]


def test_holes_and_losses_are_forgotten_with_each_event(api: StandIn, client: Client, pauses: list[float]) -> None:
    api.then(*(sse(event(seq), event(seq + 2), ends=cut) for seq in range(1, 20)), sse(event(20), end(20)))
    assert told(client) == [*range(1, 21)]
    assert len(pauses) == 19
    assert max(pauses) <= stream.MIN_PAUSE_S


@pytest.mark.parametrize("broken", [sse(event(1), event(3)), sse(event(1), gap(3, 5)), sse(event(1), end(2))])
def test_events_that_never_come_are_an_error(api: StandIn, client: Client, pauses: list[float], broken: Answer) -> None:
    api.always = broken
    got: list[Event | Gap] = []
    with pytest.raises(ProtocolError, match=r"the stream lacks the events 2 to 2$"):
        got.extend(client.events("run_1"))
    assert [item.seq for item in got if isinstance(item, Event)] == [1]
    assert len(api.requests) == stream.MAX_HOLES


def test_an_end_that_comes_too_early_is_not_one(api: StandIn, client: Client, pauses: list[float]) -> None:
    api.then(sse(event(1), end(3)), sse(event(2), event(3), end(3)))
    assert told(client) == [1, 2, 3]


def test_a_gap_is_shown_once_and_counted_as_had(api: StandIn, client: Client, pauses: list[float]) -> None:
    api.then(sse(gap(1, 7), event(8), ends=cut), sse(gap(1, 7), event(9), ends=cut), sse(gap(10, 12), ends=cut))
    api.then(reply(204))
    assert told(client) == [(1, 7), 8, 9, (10, 12)]
    assert api.last_ids == ["0", "8", "9", "12"]


def test_nothing_more_to_come_is_the_end(api: StandIn, client: Client, pauses: list[float], notes: list[str]) -> None:
    api.then(cut, reply(204))
    assert told(client, after=7) == []
    assert api.last_ids == ["7", "7"]
    assert notes[1:] == ["connected again"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_it_comes_in_any_pieces(api: StandIn, client: Client, line_end: bytes) -> None:
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


def test_a_large_event_and_many_small_ones(api: StandIn, client: Client) -> None:
    api.then(sse(event(1, text="x" * 3_000_000), *(event(seq) for seq in range(2, 3000)), end(2999)))
    assert told(client) == [*range(1, 3000)]


def test_data_over_several_lines_is_one_event(api: StandIn, client: Client) -> None:
    api.then(sse(b'data: {"seq": 1, "ts": 1,\ndata: "type": "x"}\n\n', end(1)))
    assert told(client) == [1]


def test_a_silent_connection_is_dead(
    api: StandIn, client: Client, pauses: list[float], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_S", 1.0)
    api.then(sse(event(1), ends=silent), silent, sse(event(2), end(2)))
    assert told(client) == [1, 2]
    assert api.last_ids == ["0", "1", "1"]
    assert notes[0] == f"cannot reach the API at {api.url}: timed out; trying again"


def test_pings_keep_a_quiet_connection_alive(
    api: StandIn, client: Client, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_S", 5.0)
    quiet = threading.Event()

    def pause(_: object) -> None:
        quiet.wait(0.6)

    quietly: list[Piece] = [pause, b": ping\n"]
    api.then(sse(event(1), *quietly * 10, event(2), end(2)))
    assert told(client) == [1, 2]
    assert notes == []


def test_patience_ends(
    api: StandIn, client: Client, pauses: list[float], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(1000.0, 90.0)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    api.then(sse(event(1), ends=cut))
    api.always = problem(503, "no Redis")
    with pytest.raises(Unreachable, match=r"^no Redis$"):
        told(client)
    assert 3 <= len(api.requests) <= 6
    assert len(notes) == 1


def test_a_slow_reader_is_no_reason_to_lose_patience(api: StandIn) -> None:
    api.then(sse(event(1), event(2), ends=cut), sse(event(3), end(3)))
    with Client(api.url, TOKEN, patience_s=0.2) as client:
        got = []
        items = client.events("run_1")
        threading.Event().wait(0.3)
        for item in items:
            got.append(item)
            threading.Event().wait(0.3)
    assert len(got) == 3


def test_without_patience_the_first_loss_is_final(api: StandIn, notes: list[str]) -> None:
    api.then(sse(event(1), ends=cut))
    with Client(api.url, TOKEN, patience_s=0, notify=notes.append) as client, pytest.raises(Unreachable):
        told(client)
    assert notes == []


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_a_refusal_ends_it(api: StandIn, client: Client, pauses: list[float], status: int) -> None:
    api.then(sse(event(1), ends=cut), problem(status, "no more"))
    with pytest.raises(ApiError, match=r"^no more$") as caught:
        told(client)
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
def test_what_is_no_log_is_said(api: StandIn, client: Client, answer: Answer) -> None:
    api.then(answer)
    with pytest.raises(ProtocolError, match=r"does not (stream|answer) as this API does"):
        told(client)
    assert len(api.requests) == 1


def test_events_of_later_releases_pass(api: StandIn, client: Client) -> None:
    new = b'event: hint\ndata: what\n\nid: 1\ndata: {"seq": 1, "ts": 1, "type": "new", "x": [1]}\n\n'
    api.then(sse(new, b"event: hint\n\n", b"data\n\n", end(1)))
    assert told(client) == [1]


def test_a_reader_that_leaves_closes_the_connection(api: StandIn, client: Client) -> None:
    left = threading.Event()

    def wait(wire: Wire) -> None:
        wire.silence()
        left.set()

    api.then(sse(event(1), event(2), wait))
    for _ in client.events("run_1"):
        break
    wait_until(left.is_set, "the connection is closed")
