"""Runs that a model plans, with their programs on the cluster: the worker dies in the middle of a tool."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from infra.contract.states import Status
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import AgentSite
from tests.k8s_executor.test_runs import goes_on, has_no_pods, has_printed
from tests.k8s_executor.workers import Counter, WorkerRig
from tests.support.model_server import ModelServer, model_server


@pytest.fixture(scope="module")
def server_of_model() -> Iterator[ModelServer]:
    with model_server() as made:
        yield made


@pytest.fixture
async def site(runs: WorkerRig, server_of_model: ModelServer) -> AsyncIterator[AgentSite]:
    made = AgentSite(runs.rig, runs.cluster.workspaces, cast("Any", None), server_of_model)
    yield made
    await made.close()


async def test_a_tool_is_adopted_and_the_model_is_asked_once_for_each_reply(runs: WorkerRig, site: AgentSite) -> None:
    async with Counter().listening() as counter:
        # The program must not be repeated: its effect is elsewhere.
        program = counter.program("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; echo made > file")
        read = ("file_read", {"path": "file"})
        script = site.script(plan("Compute", "Read"), ("shell", {"command": program}), read, finish("Done."))
        first = runs.worker(strategy=site.agent())
        run_id = await site.submit(max_attempts=2)
        await has_printed(runs, run_id, 1)
        await first.die()
        runs.worker(after=first, strategy=site.agent())
        await has_printed(runs, run_id, 1)
        await goes_on(runs)
        record = await runs.ended(run_id)
        assert record.status is Status.SUCCEEDED, record.error
        assert counter.count == 1
    assert script.asked == {0: 1, 1: 1, 2: 1, 3: 1}
    events = await site.log(run_id)
    assert [event.data["text"] for event in events if event.type == "tool.output"] == ["one", "two"]
    assert [event.data["call"] for event in events if event.type == "tool.started"] == ["call-1-0", "call-2-0"]
    kinds = [event.type for event in events]
    assert (kinds.count("tool.finished"), kinds.count("run.resumed")) == (2, 1)
    await has_no_pods(runs)


async def test_a_cancel_while_a_tool_runs_for_nobody_ends_the_run(runs: WorkerRig, site: AgentSite) -> None:
    script = site.script(plan("Compute"), ("shell", {"command": "echo one; sleep 1000"}), finish("Done."))
    first = runs.worker(strategy=site.agent(), lease_s=600.0)
    run_id = await site.submit()
    await has_printed(runs, run_id, 1)
    await first.die()
    runs.worker(strategy=site.agent())
    await runs.rig.store.cancel(run_id)
    assert (await runs.ended(run_id)).status is Status.CANCELLED
    await has_no_pods(runs)
    assert script.asked == {0: 1, 1: 1}
