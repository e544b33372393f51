"""Rig of the worker tests: workers built from their real parts, with tools and faults chosen by the tests."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from infra.contract.errors import StoreUnavailable
from infra.contract.execution import Command, Execution, ExecutionCaller, Executor, OnLine, Session
from infra.contract.files import NO_FOLDERS, DirectoryFiles, FileEntry, FolderEntry
from infra.contract.keys import Keys
from infra.contract.lending import OpenExecution
from infra.contract.log import Event
from infra.contract.redis import Argument, Redis, Reply, Script
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.runs import PlanStep, RunRecord, RunSpec
from infra.contract.states import TERMINAL
from infra.contract.tools import MessageArgs, ShellArgs
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.archive import NoArchive
from tests.support.logs import events_in_redis
from tests.support.run_store import RunStore
from tests.support.waiting import until
from worker.fitness import Fitness
from worker.lease import LeaseKeeper
from worker.plan import PlanWalker
from worker.queue.loop import WorkerLoop
from worker.run.strategy import Strategy
from worker.runner import Runner
from worker.settings import WorkerSettings
from worker.toolkit.base import Tool, ToolContext, ToolResult
from worker.workspaces import RunFiles, RunWorkspaces

LEASE_S = 600.0
"""Longer than any machine stands still: a lease that ends by itself would cost an attempt, and repeat a step."""

T = TypeVar("T")
ToolBody = Callable[[ToolContext, str], Awaitable[ToolResult | None]]


class NoFiles:
    """Workspaces and executor for runs that use neither."""

    logs = NoArchive()

    def run(
        self,
        user_id: str,
        run_id: str,
        fence: int,
        files: Mapping[str, FileEntry],
        folders: Mapping[str, FolderEntry] = NO_FOLDERS,
    ) -> RunFiles:
        return self  # type: ignore[return-value]

    def take_uncommitted(self) -> dict[str, FileEntry | None]:
        return {}

    def take_uncommitted_folders(self) -> dict[str, FolderEntry | None]:
        return {}

    async def check(self) -> None:
        return

    async def execute(
        self, command: Command, files: DirectoryFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution:
        raise AssertionError("no tool of these tests executes")

    async def adopt(
        self, command: Command, begun: OpenExecution, files: DirectoryFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution | None:
        raise AssertionError("no tool of these tests executes")

    async def discard(self, run_id: str, begun: OpenExecution) -> None:
        raise AssertionError("no tool of these tests executes")

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> Session:
        raise AssertionError("no tool of these tests keeps a session open")

    async def release(self, run_id: str) -> None:
        return

    def end_unowned(self, run_id: str | None) -> None:
        return


class Flaky:
    """Redis that executes every call, but loses or delays replies.

    `loses(name)` decides whether the reply to a script or command is lost, `late_s(name)` by how many seconds it is
    delayed. A claim reply that contains the run `undeliverable` is always lost.
    """

    def __init__(
        self,
        inner: Redis,
        loses: Callable[[str], bool] | None,
        late_s: Callable[[str], float] | None,
        undeliverable: str,
    ) -> None:
        self._inner = inner
        self._undeliverable = undeliverable
        self._loses = loses or (lambda _: False)
        self._late_s = late_s or (lambda _: 0.0)

    async def command(self, *args: Argument) -> Reply:
        return await self._reply(str(args[0]), self._inner.command(*args))

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        return await self._reply("pipeline", self._inner.pipeline(commands))

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        return await self._reply(script.name, self._inner.script(script, keys, args))

    async def _reply(self, name: str, call: Awaitable[T]) -> T:
        reply = await call
        await asyncio.sleep(self._late_s(name))
        if self._loses(name) or (name == "claim" and self._undeliverable in str(reply)):
            raise StoreUnavailable("the reply was lost")
        return reply


class Gate:
    """Tool that blocks until `go` is set if its command begins with `wait`, and counts its calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, context: ToolContext, command: str) -> None:
        self.calls[command] += 1
        try:
            if command.startswith("wait"):
                await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(command)
            raise

    async def reached(self, command: str) -> None:
        async def called() -> bool:
            return self.calls[command] > 0

        await until(called, f"'{command}' is executed")


class Worker:
    """A worker in this process."""

    def __init__(self, loop: WorkerLoop, keeper: LeaseKeeper, redis: RedisTcp) -> None:
        self.loop = loop
        self.keeper = keeper
        self._redis = redis
        self.task = asyncio.create_task(loop.run())

    async def drained(self) -> None:
        self.loop.drain()
        await asyncio.wait_for(self.task, 20)
        await self._redis.close()

    async def killed(self) -> None:
        """Stop as after `kill -9`: nothing more is written, no run is released."""
        doomed = [task for task in asyncio.all_tasks() if task.get_name().startswith(("run ", "work ", "emit "))]
        for task in [self.task, *doomed]:
            task.cancel()
        await asyncio.gather(self.task, *doomed, return_exceptions=True)
        await self._redis.close()


class SoonRenewed(LeaseKeeper):
    """Renews leases every `renew_s` seconds, however long they are."""

    def __init__(self, store: WorkQueue, lease_s: float, renew_s: float) -> None:
        super().__init__(store, lease_s)
        self._renew_s = renew_s

    async def _pause(self, seconds: float) -> None:
        await super()._pause(min(seconds, self._renew_s))


class Identity:
    """Name of a worker process of a test, and the names of those that it knows to have ended."""

    def __init__(self, *dead: str) -> None:
        self.process = uuid.uuid4().hex[:16]
        self.dead_processes = dead

    def forget_dead(self) -> None:
        self.dead_processes = ()


class Rig:
    """One queue and the workers on it."""

    def __init__(self, tcp: RedisTcpSettings, prefix: str = "") -> None:
        self._tcp = tcp
        self._keys = Keys(prefix)
        self.redis = RedisTcp(tcp)
        self.store = RunStore(self.redis, self._keys)
        self._workers: list[Worker] = []

    def worker(
        self,
        body: ToolBody | None = None,
        *,
        slots: int = 4,
        lease_s: float = LEASE_S,
        renew_s: float = LEASE_S,
        grace_s: float = 5.0,
        loses: Callable[[str], bool] | None = None,
        late_s: Callable[[str], float] | None = None,
        undeliverable: str = "no run",
        workspaces: RunWorkspaces | None = None,
        executor: Executor | None = None,
        idempotent: bool | Callable[[Mapping[str, Any]], bool] = True,
        identity: Identity | None = None,
        fitness: Fitness | None = None,
        strategy: Strategy | None = None,
        around: Callable[[Redis], Redis] = lambda redis: redis,
    ) -> Worker:
        """Start a worker whose `shell` tool is `body`, called with the command's text, or with another strategy.

        `around` wraps the connection to Redis.
        """
        redis = RedisTcp(self._tcp)
        store = RunStore(Flaky(around(redis), loses, late_s, undeliverable), self._keys)
        settings = WorkerSettings(f"w{len(self._workers)}", slots, lease_s, grace_s, Path())
        keeper = SoonRenewed(store, lease_s, renew_s)
        walker = PlanWalker(_tools(body, idempotent=idempotent))
        runner = Runner(store, workspaces or NoFiles(), executor or NoFiles(), strategy or walker)
        loop = WorkerLoop(settings, store, redis, keeper, runner, identity or Identity(), fitness or Fitness())
        worker = Worker(loop, keeper, redis)
        self._workers.append(worker)
        return worker

    async def submit(self, *commands: str, **spec: Any) -> str:
        """Create a run with one `shell` step for each command, or as `spec` says; return its id."""
        if commands:
            spec["plan"] = [PlanStep(tool="shell", args={"command": command}) for command in commands]
        run_id = f"run_{uuid.uuid4().hex}"
        await self.store.create(run_id, "ada", RunSpec(**spec), start=True, digest="d")
        return run_id

    async def expire_lease(self, run_id: str) -> None:
        """Let the lease of a run end now, if it has one; the next claim of any worker recovers the run."""
        await self.redis.command("ZADD", self.store.keys.leases, "XX", 1, run_id)
        await self.redis.command("PUBLISH", self.store.keys.control, "next 0")

    async def ended(self, run_id: str) -> RunRecord:
        """Return the record once the run has ended."""

        async def terminal() -> bool:
            return (await self.store.get(run_id)).status in TERMINAL

        await until(terminal, f"{run_id} ends")
        return await self.store.get(run_id)

    async def log(self, run_id: str) -> list[Event]:
        """Return the whole log; its sequence numbers must be contiguous."""
        events = await events_in_redis(self.store, run_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return events

    async def kinds(self, run_id: str) -> list[str]:
        """Return the types of the log's events."""
        return [event.type for event in await self.log(run_id)]

    async def close(self) -> None:
        for worker in self._workers:
            await worker.killed()
        await self.redis.close()


def _tools(body: ToolBody | None, *, idempotent: bool | Callable[[Mapping[str, Any]], bool]) -> dict[str, Tool]:
    async def shell(args: ShellArgs, context: ToolContext) -> ToolResult:
        result = await body(context, args.command) if body else None
        return result or ToolResult()

    async def message(args: MessageArgs, context: ToolContext) -> ToolResult:
        await context.message(args.text)
        return ToolResult()

    return {
        "shell": Tool("shell", ShellArgs, shell, idempotent=idempotent),
        "message": Tool("message", MessageArgs, message, idempotent=True),
    }
