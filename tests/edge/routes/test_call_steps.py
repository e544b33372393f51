"""Calls of an agent as the steps of its run."""

import httpx
import pytest
from msgspec import json

from infra.contract.journal import BlobRef, call_position
from infra.contract.log import NewEvent
from infra.contract.queue import Lease, Writes
from infra.contract.states import Outcome, Status
from tests.edge.stack import SimulatedWorker, finished
from worker.agent.calling import Place
from worker.agent.entries import CallRecord, tool_key

READ = CallRecord(
    tool="file_read",
    status="succeeded",
    text="1,2",
    step=0,
    started_ms=5,
    duration_ms=7,
    untrusted=True,
    result={"size_bytes": 3},
)
REFUSED = CallRecord(
    tool="shell", status="refused", text="no", step=1, started_ms=9, code="denied", message="not allowed " * 100
)


async def prompt_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> Lease:
    assert (await ada.post("/agent/runs", json={"prompt": "x"})).status_code == 201
    return await worker.claim()


async def emit(worker: SimulatedWorker, lease: Lease, *events: NewEvent, **journal: str) -> None:
    entries = {key.replace("_", ":"): text for key, text in journal.items()}
    assert (await worker.store.emit(lease, Writes(events=[*events], journal=entries))).outcome is Outcome.OK
    lease.batch += 1


def text_of(record: object) -> str:
    return json.encode(record).decode()


def started(n: int, index: int, tool: str = "shell") -> NewEvent:
    data = {"tool": tool, "args": {}, "call": Place(n, index, 1, 1.0).name}
    return NewEvent(ts=33, type="tool.started", step=1, data=data)


async def test_calls_are_listed_in_their_order_and_shown_by_their_index(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    lease = await prompt_run(ada, worker)
    path = f"/agent/runs/{lease.run_id}/steps"
    # In the order of names, the tenth exchange would come before the second.
    await emit(worker, lease, tool_10_0=text_of(READ), tool_2_1=text_of(REFUSED), tool_2_0=text_of(READ))
    await emit(worker, lease, tool_2_0_files="{}", tool_2_0_repeat_1='"yes"', model_2="{}")
    first, second, third = (await ada.get(path)).json()["steps"]
    assert first == {
        "index": 0,
        "name": "file_read",
        "tool": "file_read",
        "plan_step": 0,
        "status": "succeeded",
        "started_ms": 5,
        "duration_ms": 7,
        "result": {"size_bytes": 3},
        "kept": None,
        "error": None,
    }
    assert third == first | {"index": 2}
    assert (second["tool"], second["plan_step"], second["status"]) == ("shell", 1, "failed")
    assert (second["error"]["code"], len(second["error"]["message"])) == ("denied", 500)

    shown = (await ada.get(f"{path}/0")).json()
    assert shown == {
        "tool": "file_read",
        "status": "succeeded",
        "text": "1,2",
        "step": 0,
        "started_ms": 5,
        "duration_ms": 7,
        "result": {"size_bytes": 3},
    }
    assert (await ada.get(f"{path}/1")).json()["status"] == "refused"
    missing = await ada.get(f"{path}/3")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:swissbrain:problem:file-not-found")


async def test_the_call_under_way_is_listed_until_it_has_ended(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    lease = await prompt_run(ada, worker)
    path = f"/agent/runs/{lease.run_id}/steps"
    await emit(worker, lease, started(0, 0), tool_0_0=text_of(READ))
    assert [step["status"] for step in (await ada.get(path)).json()["steps"]] == ["succeeded"]
    await emit(worker, lease, started(0, 1))
    under_way = (await ada.get(path)).json()["steps"][1]
    assert (under_way["tool"], under_way["status"], under_way["started_ms"]) == ("shell", "running", 33)
    assert (under_way["plan_step"], under_way["duration_ms"]) == (1, None)
    assert (await ada.get(f"{path}/1")).status_code == 404
    await worker.store.finish(lease, Status.CANCELLED, Writes(events=[finished(Status.CANCELLED)]))
    assert [step["status"] for step in (await ada.get(path)).json()["steps"]] == ["succeeded", "cancelled"]


async def test_a_large_or_damaged_call_leaves_the_others_readable(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    lease = await prompt_run(ada, worker)
    path = f"/agent/runs/{lease.run_id}/steps"
    large = BlobRef.of("blob", text_of(READ))
    assert large.call
    assert (large.call.text, large.call.result) == ("", {})
    await emit(worker, lease, tool_0_0=text_of(large), tool_0_1="{", tool_0_2=text_of(READ))
    kept, damaged, whole = (await ada.get(path)).json()["steps"]
    assert (kept["tool"], kept["result"], kept["kept"], kept["duration_ms"]) == ("file_read", None, f"{path}/0", 7)
    assert (damaged["status"], damaged["error"]["code"]) == ("failed", "unreadable_record")
    assert whole["result"] == {"size_bytes": 3}
    assert (await ada.get(f"{path}/1")).status_code == 500


@pytest.mark.parametrize("place", [(0, 0), (3, 1), (199, 127)])
def test_the_key_and_the_name_of_a_call_tell_its_position(place: tuple[int, int]) -> None:
    assert call_position(tool_key(*place)) == call_position(Place(*place, step=0, seconds=1.0).name) == place
    for other in (f"{tool_key(*place)}:files", f"{tool_key(*place)}:repeat:1", "step:1", "tool:1", "tool:a:1"):
        assert call_position(other) is None
