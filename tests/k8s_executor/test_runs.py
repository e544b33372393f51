"""Runs whose workers die, drain, lose their leases, or are cancelled, while a program runs on the cluster."""

import asyncio

import pytest

from infra.contract.runs import PlanStep
from infra.contract.states import Status
from infra.k8s_executor import job_call
from infra.k8s_executor.control import PodControl
from infra.metrics import REGISTRY
from tests.k8s_executor.rig import NAMESPACE
from tests.k8s_executor.workers import ClusterWorker, Counter, Death, WorkerRig
from tests.support.waiting import until

LINES = ["one", "two", "three"]
PROGRAM = "echo one; sleep 0.4; echo two; sleep 0.4; echo three"


async def has_printed(runs: WorkerRig, run_id: str, count: int) -> None:
    async def enough() -> bool:
        return len(await runs.output(run_id)) >= count

    await until(enough, f"{count} lines are in the log")


async def goes_on(runs: WorkerRig) -> None:
    """Let the program that waits for the file `go` end."""
    (job,) = [
        job for job in runs.cluster.server.objects("jobs", NAMESPACE) if "deletionTimestamp" not in job["metadata"]
    ]
    container = runs.cluster.server.running(job["metadata"]["name"]).container
    assert container
    (container.volumes["/workspace"] / "go").touch()


async def has_no_pods(runs: WorkerRig) -> None:
    await until(runs.cluster.is_empty, "no pod is left")


async def test_a_run_executes_its_steps_and_leaves_no_job(runs: WorkerRig) -> None:
    runs.worker()
    run_id = await runs.submit("echo one > file", "cat file; echo two")
    record = await runs.ended(run_id)
    assert record.status is Status.SUCCEEDED
    assert await runs.output(run_id) == ["one", "two"]
    journal = await runs.rig.store.journal(run_id)
    assert "execution" not in journal
    assert journal["executions"] == b"2"

    async def none() -> bool:
        return not runs.cluster.jobs()

    await until(none, "all Jobs are deleted")


DEATHS = [
    Death("execution", "before"),
    Death("create", "before"),
    Death("create", "after"),
    Death("start", "after"),
    Death("execution:logged", "before"),
    Death("execution:logged", "after"),
    Death("step:0", "before"),
    Death("step:0", "after"),
]
NEVER_STARTED = DEATHS[:2]
PROVABLE = [Death("create", "before"), Death("execution:logged", "after")]


def dying_control(death: Death, workers: list[ClusterWorker]) -> type[PodControl]:
    """Return a control port of pods whose first worker dies before or after its start."""

    async def die(when: str) -> None:
        if death == Death("start", when) and workers and not workers[0].dead.is_set():
            workers[0].dead.set()
            await asyncio.Event().wait()

    class DyingControl(PodControl):
        async def start(self, name: str, manifest_url: str) -> str:
            await die("before")
            started = await super().start(name, manifest_url)
            await die("after")
            return started

    return DyingControl


@pytest.mark.parametrize(
    ("death", "idempotent"), [*((death, True) for death in DEATHS), *((death, False) for death in PROVABLE)], ids=str
)
async def test_a_program_is_started_once_wherever_its_worker_dies(
    runs: WorkerRig, death: Death, idempotent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[ClusterWorker] = []
    monkeypatch.setattr(job_call, "PodControl", dying_control(death, workers))
    async with Counter().listening() as counter:
        first = runs.worker(death, idempotent=idempotent)
        workers.append(first)
        run_id = await runs.submit(counter.program(PROGRAM), max_attempts=2)
        await runs.dies(first)
        runs.worker(after=first, idempotent=idempotent)
        record = await runs.ended(run_id)
        if not idempotent and death in NEVER_STARTED:
            # Nothing was started, but nobody can prove that.
            assert record.error
            assert (record.error.code, counter.count) == ("interrupted", 0)
            return
        assert record.status is Status.SUCCEEDED, record.error
        assert await runs.output(run_id) == LINES
        assert counter.count == 1
    kinds = await runs.rig.kinds(run_id)
    assert kinds.count("tool.finished") == 1


async def test_a_drained_worker_leaves_its_program_to_the_next_one(runs: WorkerRig) -> None:
    first = runs.worker(grace_s=0)
    run_id = await runs.submit("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two")
    await has_printed(runs, run_id, 1)
    await first.worker.drained()
    await first.executor.close()
    assert (await runs.rig.store.get(run_id)).attempt == 0
    runs.worker()
    await goes_on(runs)
    assert (await runs.ended(run_id)).status is Status.SUCCEEDED
    assert await runs.output(run_id) == ["one", "two"]


async def test_a_worker_that_has_lost_its_lease_leaves_the_program_to_the_next_owner(runs: WorkerRig) -> None:
    first = runs.worker(renew_s=0.2)
    run_id = await runs.submit("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two", max_attempts=2)
    await has_printed(runs, run_id, 1)
    first.deadly.dead.set()  # its Redis does not answer any more, but itself it lives on
    for active in first.worker.keeper.runs():
        active.valid_until = 0.0
    await runs.rig.expire_lease(run_id)
    runs.worker()

    async def claimed() -> bool:
        return (await runs.rig.store.get(run_id)).fence == 2

    await until(claimed, "the next worker has the run")
    await goes_on(runs)
    assert (await runs.ended(run_id)).status is Status.SUCCEEDED
    assert await runs.output(run_id) == ["one", "two"]
    first.deadly.buried.set()


async def test_a_cancel_ends_the_program_and_a_retry_executes_it_anew(runs: WorkerRig) -> None:
    runs.worker()
    async with Counter().listening() as counter:
        run_id = await runs.submit(counter.program("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"))
        await has_printed(runs, run_id, 1)
        await runs.rig.store.cancel(run_id)
        assert (await runs.ended(run_id)).status is Status.CANCELLED
        await has_no_pods(runs)
        await runs.rig.store.retry(run_id, token="again")
        await has_printed(runs, run_id, 2)
        await goes_on(runs)
        assert (await runs.ended(run_id)).status is Status.SUCCEEDED
        assert counter.count == 2
    assert await runs.output(run_id) == ["one", "one", "two"]


async def test_a_step_that_takes_too_long_ends_its_program(runs: WorkerRig) -> None:
    runs.worker()
    step = PlanStep(tool="shell", args={"command": "echo one; sleep 1000"}, timeout_s=3)
    record = await runs.ended(await runs.submit(plan=[step]))
    assert record.error
    assert record.error.code == "timeout"
    await has_no_pods(runs)


async def test_a_cancel_that_the_next_worker_finds_ends_the_program(runs: WorkerRig) -> None:
    first = runs.worker()
    run_id = await runs.submit("echo one; sleep 1000", max_attempts=2)
    await has_printed(runs, run_id, 1)
    await first.die()
    # Its lease has not expired yet, so the run counts as running.
    await runs.rig.store.cancel(run_id)
    runs.worker()
    assert (await runs.ended(run_id)).status is Status.CANCELLED
    # The queue itself has ended the run, so no worker had it; the worker that hears of that ends its Job.
    await has_no_pods(runs)


async def test_the_reaper_leaves_what_an_owner_may_adopt(runs: WorkerRig) -> None:
    first = runs.worker(grace_s=0)
    run_id = await runs.submit("echo one; sleep 1000")
    await has_printed(runs, run_id, 1)
    other = runs.cluster.executor(installation="another")
    assert await other.reap() == 0
    assert await first.executor.reap() == 0
    await first.worker.drained()
    await first.executor.close()
    third = runs.cluster.executor(installation=runs.installation)
    runs.cluster.open_numbers[run_id] = 1
    assert await third.reap() == 0
    runs.cluster.open_numbers[run_id] = 2
    before = REGISTRY.get_sample_value("swissbrain_jobs_reaped_total") or 0
    assert await third.reap() == 1
    assert REGISTRY.get_sample_value("swissbrain_jobs_reaped_total") == before + 1
    await has_no_pods(runs)
