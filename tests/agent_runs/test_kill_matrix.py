"""Kill matrix: a worker dies before and after every write of the journal, and another one goes on."""

import asyncio
from collections import Counter

from infra.contract.execution import Command, Execution, OnLine
from infra.contract.files import DirectoryFiles
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

AT_A_TIME = 4
FILES = {"sales.csv", "total.py", "chart.svg", "report.md"}


class CountingExecutor:
    """Executor that counts the executions of each call."""

    def __init__(self, inner: LocalExecutor) -> None:
        self._inner = inner
        self.executed: Counter[str] = Counter()

    async def execute(self, command: Command, files: DirectoryFiles, on_line: OnLine) -> Execution:
        self.executed[command.call] += 1
        return await self._inner.execute(command, files, on_line)

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
            "Sum up sales.csv", start=False, output_schema=SCHEMA, max_attempts=1, stream=False
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


async def run_job(site: AgentSite, rig: Rig, name: str, scripts: dict[str, Script], key: str, when: When) -> list[str]:
    """Run the job, with a death at one write; check everything; return the keys of the writes."""
    job = Job(site, rig, name)
    scripts[name] = job.script
    await job.start()
    deadly: list[Deadly] = []
    first = Identity()
    worker = job.worker(first, deadly, key, when)
    ended = await job.ends(deadly[0].dead)
    if not ended or deadly[0].dead.is_set():
        await worker.killed()
        job.worker(Identity(first.process), deadly)
        assert await job.ends(asyncio.Event())
    await check(job, key if when == "before" else "")
    await rig.close()
    await job.site.close()
    return deadly[0].written


async def check(job: Job, lost: str) -> None:
    """Compare with an undisturbed run. `lost`: key whose write was lost, so that this alone was done again."""
    run = await job.site.store.get(job.run_id)
    assert (run.status, run.error, run.attempt) == (Status.SUCCEEDED, None, 1)
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


async def test_a_worker_may_die_at_every_write(tcp: RedisTcpSettings, site: AgentSite) -> None:
    scripts: dict[str, Script] = {}
    site.server.respond = lambda request: scripts[request.json["model"]](request)
    keys = await run_job(site, Rig(tcp, "reference"), "reference", scripts, "", "before")
    assert {"setup", "asked:6", "wait", "finish", *(f"model:{n}" for n in range(9)), "tool:8:0"} <= set(keys)
    places: list[tuple[str, When]] = [(key, when) for key in dict.fromkeys(keys) for when in ("before", "after")]
    gate = asyncio.Semaphore(AT_A_TIME)

    async def case(key: str, when: When) -> None:
        name = f"{key}-{when}"
        async with gate:
            try:
                await run_job(site, Rig(tcp, name), name, scripts, key, when)
            except BaseException as exc:
                exc.add_note(f"killed {when} the write of {key}")
                raise

    await asyncio.gather(*(case(key, when) for key, when in places))
