"""Reads of random logs, compared with a list of their events: pages in both directions, streams, filters, losses.

A log has archived segments and batches in Redis, some of each lost. A reader that starts anywhere must get each event
that is stored and that its filters select once and in order, and each lost event in a gap.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from msgspec import json

from edge_api.logs import backwards as log_backwards
from edge_api.logs import pages as log_pages
from infra.contract.log import NewEvent
from tests.edge.logs.archiving import ArchivingWorker
from tests.edge.stack import Edge, create

TYPES = ("tool.output", "message", "step.started")
Wanted = Callable[[NewEvent], bool]


@dataclass
class Model:
    """Events of a log by their number, and the numbers of those that are lost."""

    run_id: str
    events: dict[int, NewEvent] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def numbers(self, wanted: Wanted, first: int, last: int) -> list[int]:
        return [n for n in range(first, last + 1) if n in self.events and n not in self.lost and wanted(self.events[n])]

    def gaps(self, first: int, last: int) -> set[int]:
        return {n for n in self.lost if first <= n <= last}


@pytest.fixture
def edge(stored_edge: Edge) -> Edge:
    return stored_edge


def some_event(chance: random.Random) -> NewEvent:
    kind = chance.choice(TYPES)
    data: dict[str, Any] = {"text": "x" * chance.choice((1, 1, 1, 5000))}
    if kind != "step.started":
        data["stream"] = chance.choice(("stdout", "stderr"))  # only of outputs is it a stream
    return NewEvent(ts=1, type=kind, step=chance.choice((None, 0, 1, 2)), data=data)


async def some_log(chance: random.Random, http: httpx.AsyncClient, worker: ArchivingWorker) -> Model:
    model = Model(await create(http))
    lease = await worker.claim()
    model.events[1] = NewEvent(ts=1, type="run.started")
    batches: list[range] = []
    for _ in range(chance.randint(0, 30)):
        batch = [some_event(chance) for _ in range(chance.randint(1, 5))]
        await worker.emit(lease, *batch)
        first = max(model.events) + 1
        model.events |= dict(enumerate(batch, first))
        batches.append(range(first, first + len(batch)))
    await worker.finish(lease)
    last = max(model.events) + 1
    model.events[last] = NewEvent(ts=1, type="run.finished")
    ends = sorted(chance.sample(range(1, last + 1), min(last, chance.randint(0, 4))))
    segments = await worker.archive(model.run_id, *ends)
    for segment in segments:
        if chance.random() < 0.3:
            await worker.workspaces.logs.discard(await worker.store.log(model.run_id), segment)
            model.lost |= {*range(segment.first, segment.last + 1)}
    archived = ends[-1] if ends else 0
    for batch_numbers in batches:
        if batch_numbers[0] > archived and chance.random() < 0.1:
            await worker.redis.command("XDEL", f"run:{model.run_id}:log", f"{batch_numbers[-1]}-0")
            model.lost |= {*batch_numbers}
    return model


def some_filter(chance: random.Random) -> tuple[dict[str, str], Wanted]:
    steps = chance.sample((0, 2), chance.randint(1, 2)) if chance.random() < 0.5 else []
    streams = [chance.choice(("stdout", "stderr"))] if chance.random() < 0.3 else []
    types = chance.sample([*TYPES, "run.started"], chance.randint(1, 2)) if chance.random() < 0.5 else []
    named: dict[str, list[Any]] = {"step": steps, "stream": streams, "type": types}

    def wanted(event: NewEvent) -> bool:
        is_output = event.type == "tool.output" and event.data.get("stream") in streams
        return (not steps or event.step in steps) and (not types or event.type in types) and (not streams or is_output)

    return {name: ",".join(map(str, values)) for name, values in named.items() if values}, wanted


def covered(gap: dict[str, int] | None) -> list[int]:
    return [] if gap is None else [*range(gap["first"], gap["last"] + 1)]


async def forwards(http: httpx.AsyncClient, model: Model, after: int, **params: Any) -> tuple[list[int], list[int]]:
    found: list[int] = []
    gaps: list[int] = []
    while True:
        body = (await http.get(f"/agent/logs/{model.run_id}", params={**params, "after": after})).json()
        found += [event["seq"] for event in body["events"]]
        gaps += covered(body.get("gap"))
        assert body["next_after"] > after or body["done"]
        after = body["next_after"]
        if body["done"]:
            return found, gaps


async def backwards(http: httpx.AsyncClient, model: Model, **params: Any) -> tuple[list[int], list[int]]:
    found: list[int] = []
    gaps: list[int] = []
    while True:
        body = (await http.get(f"/agent/logs/{model.run_id}", params=params)).json()
        seqs = [event["seq"] for event in body["events"]]
        assert body["first_seq"] == (seqs[0] if seqs else None)
        found, gaps = seqs + found, covered(body.get("gap")) + gaps
        before = body["prev_before"]
        if before is None:
            return found, gaps
        assert before < params.get("before", before + 1)
        params = {name: value for name, value in params.items() if name not in {"tail", "before"}} | {"before": before}


async def streamed(http: httpx.AsyncClient, model: Model, **params: Any) -> tuple[list[int], list[int]]:
    found: list[int] = []
    gaps: list[int] = []
    ids: list[int] = []
    async with aconnect_sse(http, "GET", f"/agent/logs/{model.run_id}/stream", params=params) as source:
        assert source.response.status_code == 200
        async for item in source.aiter_sse():
            if item.event == "message":
                found.append(json.decode(item.data)["seq"])
            elif item.event == "gap":
                gaps += covered(json.decode(item.data))
            ids += [int(item.id)] if item.id else []
    assert ids == sorted(ids)
    return found, gaps


@pytest.mark.parametrize("seed", [0, 2])
async def test_every_reader_gets_what_a_list_of_the_events_has(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    model = await some_log(chance, ada, archiving)
    last = max(model.events)
    for _ in range(12):
        reads = chance.choice((1, 2, 32))
        monkeypatch.setattr(log_pages, "MAX_READS", reads)
        monkeypatch.setattr(log_backwards, "MAX_READS", reads)
        enough = chance.choice((1, 6000, 1024 * 1024))
        monkeypatch.setattr(log_pages, "ENOUGH_BYTES", enough)
        monkeypatch.setattr(log_backwards, "ENOUGH_BYTES", enough)
        params, wanted = some_filter(chance)
        limit = chance.choice((1, 2, 7, 1000))
        after = chance.randint(0, last - 1)
        expected = (model.numbers(wanted, after + 1, last), sorted(model.gaps(after + 1, last)))
        assert await forwards(ada, model, after, limit=limit, **params) == expected
        assert await streamed(ada, model, after=after, **params) == expected
        before = chance.randint(1, last + 5)
        expected = (model.numbers(wanted, 1, before - 1), sorted(model.gaps(1, before - 1)))
        assert await backwards(ada, model, before=before, limit=limit, **params) == expected
        everything = (model.numbers(wanted, 1, last), sorted(model.lost))
        assert await backwards(ada, model, tail=limit, limit=limit, **params) == everything
        monkeypatch.undo()
        found, _ = await streamed(ada, model, tail=limit, **params)
        assert found == everything[0][-limit:]
