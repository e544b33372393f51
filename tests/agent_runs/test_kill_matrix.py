"""Kill matrix: a worker dies before each write of the journal, its heir after that write, and a third one goes on."""

import asyncio
from collections import Counter

import pytest

from infra.contract.execution import Command, Execution, ExecutionCaller, OnLine, Session
from infra.contract.files import DirectoryFiles
from infra.contract.lending import OpenExecution
from infra.contract.llm import ModelChoice
from infra.contract.requests import GivenAnswer
from infra.contract.states import TERMINAL, Status
from infra.local_executor import LocalExecutor
from infra.settings import RedisTcpSettings
from tests.agent_runs.job import CALLS, JOB, RESULT, SCHEMA, TABLE
from tests.agent_runs.killing import Deadly, When
from tests.agent_runs.script import Script
from tests.agent_runs.site import PRICE, AgentSite
from tests.support.waiting import until
from tests.worker.rig import Identity, Rig, Worker

WRITES = [
    "setup",
    "model:0",
    "tool:0:0",
    "model:1",
    "tool:1:0",
    "tool:1:1",
    "model:2",
    "tool:2:0",
    "tool:2:0:files",
    "model:3",
    "tool:3:0",
    "model:4",
    "tool:4:0",
    "tool:4:0:files",
    "model:5",
    "tool:5:0",
    "model:6",
    "wait",
    "asked:6",
    "tool:6:0",
    "tool:6:1",
    "model:7",
    "tool:7:0",
    "tool:7:0:files",
    "model:8",
    "tool:8:0",
    "finish",
]
DEATHS: tuple[When, ...] = ("before", "after")
FILES = {"sales.csv", "total.py", "chart.svg", "report.md"}


class CountingExecutor:
    """Executor that counts the executions of each call."""

    def __init__(self, inner: LocalExecutor) -> None:
        self._inner = inner
        self.executed: Counter[str] = Counter()

    async def execute(
        self, command: Command, files: DirectoryFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution:
        self.executed[command.call] += 1
        return await self._inner.execute(command, files, on_line, caller)

    async def adopt(
        self, command: Command, begun: OpenExecution, files: DirectoryFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution | None:
        return await self._inner.adopt(command, begun, files, on_line, caller)

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> Session:
        return await self._inner.open(command, max_reply_bytes, fence)

    async def discard(self, run_id: str, begun: OpenExecution) -> None:
        await self._inner.discard(run_id, begun)

    async def check(self) -> None:
        await self._inner.check()

    def end_unowned(self, run_id: str | None) -> None:
        self._inner.end_unowned(run_id)

    async def release(self, run_id: str) -> None:
        await self._inner.release(run_id)


class Job:
    """One run of the job, with a queue and a model of its own."""

    def __init__(self, site: AgentSite, rig: Rig, name: str) -> None:
        self.site = AgentSite(rig, site.workspaces, site.executor, site.server)
        self.executor = CountingExecutor(site.executor)
        self.script = Script(JOB)
        self.model = ModelChoice(name=name, price=PRICE)
        self.run_id = ""
        self._answered = False

    def worker(self, identity: Identity, deadly: list[Deadly], key: str = "", when: When = "before") -> Worker:
        strategy = self.site.agent(models=[self.model])
        return self.site.rig.worker(
            strategy=strategy,
            workspaces=self.site.workspaces,
            executor=self.executor,
            identity=identity,
            around=lambda redis: deadly.append(Deadly(redis, key, when)) or deadly[-1],  # type: ignore[func-returns-value]
        )

    async def start(self) -> None:
        self.run_id = await self.site.submit(
            "Sum up sales.csv", start=False, output_schema=SCHEMA, max_attempts=3, stream=False
        )
        await self.site.upload(self.run_id, "sales.csv", TABLE)
        await self.site.start(self.run_id)

    async def ends(self, dead: asyncio.Event) -> bool:
        """Answer the question once the run waits; return True when the run has ended, False when the worker is dead."""

        async def settled() -> bool:
            run = await self.site.store.get(self.run_id)
            if run.status is Status.WAITING and run.waiting and not self._answered:
                self._answered = True
                answer = GivenAnswer(input="Sales of May")
                await self.site.store.resume(self.run_id, {run.waiting.requests[0].id: answer}, by="ada", token="t")
            return run.status in TERMINAL or dead.is_set()

        await until(settled, "the run ends, or its worker dies", timeout_s=120)
        return not dead.is_set()


async def run_job(site: AgentSite, rig: Rig, name: str, scripts: dict[str, Script], key: str) -> list[str]:
    """Run the job, with a death before one write and another after it; check everything; return the keys written.

    Without a key nobody dies. One job has both deaths, because each job takes a second of processor time.
    """
    job = Job(site, rig, name)
    scripts[name] = job.script
    deadly: list[Deadly] = []
    identity = Identity()
    try:
        await job.start()
        for when in DEATHS if key else ():
            worker = job.worker(identity, deadly, key, when)
            await job.ends(deadly[-1].dead)
            run = await job.site.store.head(job.run_id)
            assert deadly[-1].dead.is_set(), f"no worker wrote {key}: the run is {run.status}, {run.error}"
            deadly[-1].buried.set()
            await worker.killed()
            # The heir recovers the first loss by the name of the dead process; after two in a row the lease decides.
            if when == "after":
                await rig.expire_lease(job.run_id)
            identity = Identity(identity.process)
        job.worker(identity, deadly)
        assert await job.ends(asyncio.Event())
        await check(job, key)
    finally:
        for each in deadly:
            each.buried.set()
        await rig.close()
        await job.site.close()
    return deadly[0].written


async def check(job: Job, lost: str) -> None:
    """Compare with an undisturbed run. `lost`: key whose write was lost, so that this alone was done again."""
    run = await job.site.store.get(job.run_id)
    assert run.error is None, run.error
    assert run.status is Status.SUCCEEDED
    assert run.result == RESULT
    files = await job.site.files(job.run_id)
    assert {path for path in files if not path.startswith(".run/")} == FILES
    assert files["report.md"] == b"# Sales of May\n\nTotal: 60\n"
    again = {f"model:{n}": {n: 1} for n in range(len(JOB))}.get(lost, {})
    assert job.script.asked == Counter(range(len(JOB))) + Counter(again)
    programs = Counter(["call-3-0", "call-5-0", "call-7-0"])
    repeated = Counter(call for call in programs if lost == f"tool:{call[5]}:0")
    assert job.executor.executed - programs in (Counter(), repeated)
    assert not programs - job.executor.executed
    events = await job.site.log(job.run_id)
    assert [event.data["n"] for event in events if event.type == "model.message"] == list(range(len(JOB)))
    assert [event.data["call"] for event in events if event.type == "tool.finished"] == CALLS
    assert [event.step for event in events if event.type == "step.finished"] == [0, 1, 2]


@pytest.fixture
def scripts(site: AgentSite) -> dict[str, Script]:
    """Scripts of the endpoint by the name of the model."""
    made: dict[str, Script] = {}
    site.server.respond = lambda request: made[request.json["model"]](request)
    return made


async def test_the_matrix_has_every_write(tcp: RedisTcpSettings, site: AgentSite, scripts: dict[str, Script]) -> None:
    assert await run_job(site, Rig(tcp, "whole"), "whole", scripts, "") == WRITES


@pytest.mark.parametrize("key", [key for key in WRITES if not key.endswith(":files")])
async def test_workers_may_die_before_and_after_a_write(
    tcp: RedisTcpSettings, site: AgentSite, scripts: dict[str, Script], key: str
) -> None:
    await run_job(site, Rig(tcp, key), key, scripts, key)
