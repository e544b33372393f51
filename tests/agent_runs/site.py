"""Site of the agent tests: workers with the agent, over a scripted model endpoint."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from infra.contract.llm import ModelChoice, Price
from infra.contract.log import Event
from infra.contract.runs import RunRecord, RunSpec
from infra.contract.states import Status
from infra.llm_http.model import LlmHttp
from infra.llm_http.settings import LlmSettings
from infra.local_executor import LocalExecutor
from infra.workspace import Workspaces
from tests.agent_runs.script import Script, Step
from tests.support.logs import events_in_redis
from tests.support.model_server import ModelServer
from tests.support.waiting import until
from tests.worker.rig import Rig, Worker
from tests.worker.site import Site
from worker.agent.settings import AgentSettings
from worker.agent.supervisor import Supervisor
from worker.plan import PlanWalker
from worker.plan_or_prompt import PlanOrPrompt
from worker.registry import REGISTRY
from worker.toolkit.base import Tool

PRICE = Price(currency="CHF", input=1.0, output=2.0)
MODELS = [ModelChoice(name="small", price=PRICE), ModelChoice(name="large", price=PRICE)]


class AgentSite(Site):
    """Rig whose workers work on prompts with the models of one scripted endpoint."""

    def __init__(self, rig: Rig, workspaces: Workspaces, executor: LocalExecutor, server: ModelServer) -> None:
        super().__init__(rig, workspaces)
        self.executor = executor
        self.server = server
        self._agents: list[Supervisor] = []

    def agent(
        self,
        *,
        models: Sequence[ModelChoice] = MODELS,
        settings: AgentSettings | None = None,
        tools: Mapping[str, Tool] = REGISTRY,
        **llm: Any,
    ) -> PlanOrPrompt:
        """Return a strategy whose agent asks the scripted endpoint; pauses between its tries are short."""
        values: dict[str, Any] = {"base_url": self.server.url, "backoff_s": 0.001, "max_retries": 1, **llm}
        adapter = LlmHttp(LlmSettings(models=models, **values))
        agent = Supervisor(adapter, models, tools, settings or AgentSettings())
        self._agents.append(agent)
        return PlanOrPrompt(PlanWalker(REGISTRY), agent)

    def worker(self, *, strategy: PlanOrPrompt | None = None, **options: Any) -> Worker:
        """Start a worker."""
        strategy = strategy or self.agent()
        return self.rig.worker(strategy=strategy, workspaces=self.workspaces, executor=self.executor, **options)

    def script(self, *steps: Step) -> Script:
        """Let the endpoint reply by these steps from now on."""
        script = Script(steps)
        self.server.respond = script
        return script

    async def submit(self, prompt: str = "Do it.", *, start: bool = True, **spec: Any) -> str:
        """Create a run with a prompt; return its id."""
        run_id = f"run_{uuid.uuid4().hex}"
        await self.store.create(run_id, "ada", RunSpec(prompt=prompt, **spec), start=start, digest="d")
        return run_id

    async def ended(self, run_id: str) -> RunRecord:
        """Return the record once the run has ended."""
        return await self.rig.ended(run_id)

    async def waits(self, run_id: str) -> dict[str, Any]:
        """Return the open requests by id once the run waits."""

        async def is_waiting() -> bool:
            return (await self.store.get(run_id)).status is Status.WAITING

        await until(is_waiting, "the run waits")
        waiting = (await self.store.head(run_id)).waiting
        assert waiting
        return {request.id: request for request in waiting.requests}

    async def log(self, run_id: str) -> list[Event]:
        """Return the log from the archive and from Redis, which must be contiguous."""
        head = await self.store.log(run_id)
        events = []
        for segment in head.segments:
            async for batch in self.workspaces.logs.read(head, segment, after=segment.first - 1):
                events += batch
        # The entry of the stream that holds the last archived event stays in Redis.
        events += await events_in_redis(self.store, run_id, after=head.archived)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return events

    async def close(self) -> None:
        for agent in self._agents:
            await agent.close()
