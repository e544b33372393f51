"""Parts of a log: its end, backwards page by page, and the events that filters select."""

from typing import Any

import pytest

from swissbrain import Client, ClientError, Event, Gap, ProtocolError
from tests.client.scripted_server import ScriptedServer, end, event, gap, ok, reset, sse


def part(*seqs: int, **more: Any) -> Any:
    events = [{"seq": seq, "ts": 1, "type": "x"} for seq in seqs]
    return ok({"events": events, "next_after": max(seqs, default=0), "done": False, **more})


def numbers(items: list[Event | Gap]) -> list[int | tuple[int, int]]:
    return [item.seq if isinstance(item, Event) else (item.first, item.last) for item in items]


def test_the_end_of_a_log_is_read_backwards(
    api: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swissbrain.endpoints.EVENTS_PER_PAGE", 3)
    api.then(part(7, 8, 9, prev_before=7), part(4, 5, 6, prev_before=4), part(3, prev_before=3))
    assert numbers(client.logs("run_1", tail=7)) == [3, 4, 5, 6, 7, 8, 9]
    assert api.targets == [
        "/agent/logs/run_1?tail=3",
        "/agent/logs/run_1?before=7&limit=3",
        "/agent/logs/run_1?before=4&limit=1",
    ]


def test_a_log_may_have_fewer_events_and_a_gap(api: ScriptedServer, client: Client) -> None:
    api.then(part(4, 5, prev_before=None, gap={"first": 1, "last": 3}))
    assert numbers(client.logs("run_1")) == [(1, 3), 4, 5]
    assert api.targets == ["/agent/logs/run_1?tail=100"]


def test_the_events_before_an_event_are_read(api: ScriptedServer, client: Client) -> None:
    api.then(part(1, 2, prev_before=None))
    assert numbers(client.logs("run_1", before=3, tail=10)) == [1, 2]
    assert api.targets == ["/agent/logs/run_1?before=3&limit=10"]


def test_filters_have_one_value_or_several(api: ScriptedServer, client: Client) -> None:
    api.always = part()
    client.logs("run_1", tail=5, step=0, stream="stderr", event_type="tool.output")
    client.logs("run_1", tail=5, step=[0, 2], stream=["stdout", "stderr"], event_type=("a", "b"))
    assert [*client.logged("run_1", step=3)] == []
    assert api.targets == [
        "/agent/logs/run_1?tail=5&step=0&stream=stderr&type=tool.output",
        "/agent/logs/run_1?tail=5&step=0%2C2&stream=stdout%2Cstderr&type=a%2Cb",
        "/agent/logs/run_1?after=0&limit=1000&step=3",
    ]


def test_an_empty_filter_does_not_select_everything(api: ScriptedServer, client: Client) -> None:
    for ask in (
        lambda: client.logs("run_1", stream=[]),
        lambda: client.logs("run_1", event_type=""),
        lambda: [*client.events("run_1", step=())],
        lambda: [*client.runs(status=[])],
    ):
        with pytest.raises(ClientError, match="a filter is empty"):
            ask()
    assert api.requests == []


def test_a_filtered_log_goes_on_after_pages_without_a_match(api: ScriptedServer, client: Client) -> None:
    api.then(
        ok({"events": [], "next_after": 1000, "done": False}),
        part(1500, next_after=2000),
        ok({"events": [], "next_after": 2500, "done": True}),
    )
    assert numbers([*client.logged("run_1", step=1)]) == [1500]
    assert [target.split("&")[0] for target in api.targets] == [
        f"/agent/logs/run_1?after={after}" for after in (0, 1000, 2000)
    ]


def test_a_filtered_stream_continues_after_the_events_that_it_did_not_get(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.then(
        sse(event(3), b'event: skipped\nid: 40\ndata: {"last": 40}\n\n', b": ping\n\n", ends=reset),
        sse(event(50), event(60), end(99)),
    )
    assert numbers([*client.events("run_1", stream="stderr")]) == [3, 50, 60]
    assert api.last_ids == ["0", "40"]
    assert api.targets == ["/agent/logs/run_1/stream?stream=stderr"] * 2


def test_a_stream_begins_with_the_last_events_and_continues_where_it_broke(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.then(reset, sse(event(8), event(9), ends=reset), sse(event(10), end(10)))
    assert numbers([*client.events("run_1", tail=2)]) == [8, 9, 10]
    assert api.targets == [
        "/agent/logs/run_1/stream?tail=2",
        "/agent/logs/run_1/stream?tail=2",
        "/agent/logs/run_1/stream",
    ]
    assert api.last_ids == [None, None, "9"]


def test_events_missing_after_the_beginning_of_a_tail_are_noticed(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.always = sse(event(8), event(10), end(10))
    with pytest.raises(ProtocolError, match=r"the stream lacks the events 9 to 9$"):
        [*client.events("run_1", tail=2)]


def test_a_tail_of_an_empty_log_ends(api: ScriptedServer, client: Client) -> None:
    api.then(sse(end(0)))
    assert [*client.events("run_1", tail=5)] == []


def test_a_gap_in_a_filtered_stream_is_yielded(api: ScriptedServer, client: Client) -> None:
    api.then(sse(gap(1, 5), event(9), end(9)))
    assert numbers([*client.events("run_1", step=1)]) == [(1, 5), 9]
