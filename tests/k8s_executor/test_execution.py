"""Executions in Jobs: what a program gets and leaves, who may end it, and how the next owner of a run adopts it."""

import asyncio
from typing import Any

import pytest

from infra.contract.errors import HostExhausted, LeaseLost
from infra.contract.lending import OpenExecution
from tests.k8s_executor.rig import NAMESPACE, ClusterRig, LoneRun
from tests.support.caller import LoneCaller
from tests.support.processes import processes_with
from tests.support.waiting import until

WAITING = "echo up; while [ ! -e go ]; do sleep 0.05; done; echo made > file; echo end; echo oops >&2; exit 3"


async def goes_on(run: LoneRun) -> None:
    """Let a WAITING program end."""
    container = run.cluster.server.running(run.job).container
    assert container
    (container.volumes["/workspace"] / "go").touch()


async def vanishes(run: LoneRun, task: "asyncio.Task[object]") -> None:
    """Let the worker of a run be lost during an execution."""
    run.caller.elsewhere = True
    run.cluster.open_numbers[run.run_id] = run.begun.number
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def has_no_jobs(cluster: ClusterRig) -> None:
    async def none() -> bool:
        return not cluster.jobs()

    await until(none, "all Jobs are deleted")


async def test_a_program_runs_in_a_job_of_its_own(cluster: ClusterRig) -> None:
    run = cluster.run()
    await run.files.write("given", b"x\n")
    ended = await run.execute("cat given; echo made > file; echo oops >&2; exit 3")
    assert (ended.exit_code, ended.timed_out) == (3, False)
    assert sorted(run.lines) == ["oops", "x"]
    assert ended.stdout.read_text() == "x\n"
    assert [file.path for file in ended.changes.written] == ["file"]
    assert cluster.jobs() == {run.job}
    await run.executor.discard(run.run_id, run.begun)
    await has_no_jobs(cluster)
    await run.executor.release(run.run_id)
    assert not ended.stdout.exists()


async def test_a_cancelled_program_is_dead_before_the_call_returns(cluster: ClusterRig) -> None:
    run = cluster.run()
    task = await run.start(f"echo up; trap '' TERM; sh -c 'sleep 1000; :' {run.run_id}")

    async def runs() -> bool:
        return bool(processes_with(run.run_id))

    await until(runs, "the program runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not processes_with(run.run_id)
    assert run.caller.warnings == []
    await has_no_jobs(cluster)


async def test_a_program_outlives_its_worker_and_is_adopted_with_all_of_its_lines(cluster: ClusterRig) -> None:
    run = cluster.run()
    await vanishes(run, await run.start(WAITING))
    owner = run.next_owner()
    adopting = asyncio.create_task(owner.adopt(WAITING))
    await owner.printed(1)
    await goes_on(owner)
    ended = await adopting
    assert ended
    assert (ended.exit_code, [file.path for file in ended.changes.written]) == (3, ["file", "go"])
    assert owner.lines[0] == "up"
    assert sorted(owner.lines[1:]) == ["end", "oops"]
    assert len(cluster.server.objects("pods", "agent-tools")) == 1


async def test_a_program_whose_job_is_deleted_since_long_is_adopted(cluster: ClusterRig) -> None:
    run = cluster.run()
    task = await run.start(WAITING)
    await vanishes(run, task)
    await goes_on(run)

    async def over() -> bool:
        return all("conditions" in job["status"] for job in cluster.server.objects("jobs", NAMESPACE))

    await until(over, "the Job has ended")
    cluster.server.advance(3600)
    await has_no_jobs(cluster)
    owner = run.next_owner()
    ended = await owner.adopt(WAITING)
    assert ended
    assert (ended.exit_code, sorted(owner.lines), owner.lines[0]) == (3, ["end", "oops", "up"], "up")
    assert ended.stderr.read_text() == "oops\n"


class Frozen(LoneCaller):
    """Caller of a worker that is suspended once it has recorded an execution."""

    def __init__(self) -> None:
        super().__init__()
        self.thaw = asyncio.Event()

    async def record(self, begun: OpenExecution) -> None:
        await super().record(begun)
        await self.thaw.wait()


async def test_a_suspended_worker_creates_no_program_that_was_given_up(cluster: ClusterRig) -> None:
    run = cluster.run()
    run.caller = frozen = Frozen()
    task = asyncio.create_task(run.execute("echo started twice"))

    async def recorded() -> bool:
        return bool(frozen.recorded)

    await until(recorded, "the execution is recorded")
    owner = run.next_owner()
    assert await owner.adopt("echo started twice") is None
    # Its clock has stood still, so it takes its lease for valid.
    frozen.thaw.set()
    with pytest.raises(HostExhausted, match=r"without a result|could not store"):
        await task
    assert run.lines == []


async def test_a_suspended_worker_that_notices_creates_nothing(cluster: ClusterRig) -> None:
    run = cluster.run()
    run.caller = frozen = Frozen()
    task = asyncio.create_task(run.execute("echo never"))
    frozen.elsewhere = True
    frozen.thaw.set()
    with pytest.raises(LeaseLost):
        await task
    assert cluster.jobs() == set()


async def test_a_pod_that_nobody_has_started_is_started_by_the_next_owner(cluster: ClusterRig) -> None:
    cluster.server.delays.container_s = 1.0
    run = cluster.run()
    task = asyncio.create_task(run.execute("echo once"))

    async def created() -> bool:
        return bool(cluster.jobs())

    await until(created, "the Job is created")
    await vanishes(run, task)
    owner = run.next_owner()
    ended = await owner.adopt("echo once")
    assert ended
    assert (ended.exit_code, owner.lines) == (0, ["once"])


async def test_a_program_that_was_ended_from_outside_is_not_adopted(cluster: ClusterRig) -> None:
    run = cluster.run()
    await vanishes(run, await run.start(f"echo up; sh -c 'sleep 1000; :' {run.run_id}"))
    cluster.server.preempt(run.job)
    owner = run.next_owner()
    assert await owner.adopt("") is None
    assert not processes_with(run.run_id)


async def test_a_job_of_something_else_is_not_touched(cluster: ClusterRig) -> None:
    run, other = cluster.run(), cluster.run()
    await vanishes(other, await other.start("echo up; sleep 1000"))

    def change(job: Any) -> None:
        job["metadata"]["annotations"]["swissbrain-agent/call"] = "step-9"

    server = cluster.server
    server.call(lambda: server.store.update("jobs", (NAMESPACE, other.job), change))
    with pytest.raises(Exception, match="belongs to something else"):
        await other.next_owner().adopt("")
    assert other.job in cluster.jobs()
    await run.executor.discard(other.run_id, other.begun)
    await has_no_jobs(cluster)
