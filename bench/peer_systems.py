"""Systems that `bench.peer_comparison` measures: SwissBrain, and BullMQ and Restate from npm.

Each has an HTTP server for the runs, one worker process and one store, all on this machine, each with its default
settings. SwissBrain and BullMQ work on four runs at a time, Restate on all at the same time. The stores of SwissBrain
and BullMQ are Valkeys that append each write to a file and flush it once a second.
"""

import asyncio
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import AsyncExitStack, aclosing, closing
from pathlib import Path
from typing import ClassVar

from redis import asyncio as redis

from bench import npm
from bench.generator import Generator
from bench.lab import NOOP, Lab, billed_commands, lab
from infra.devstack import probes, processes
from infra.devstack.port_numbers import HOST
from infra.devstack.stack import find_valkey
from infra.devstack.supervised_process import SupervisedProcess
from tests.support.redis import free_port

SLOTS = 4
RESTART_S = 0.5
"""Pause of a supervisor before it starts a killed worker again."""
PAUSE_S = 0.02
TIMEOUT_S = 120.0
ENVIRONMENT = processes.base_environment(os.environ)


class System(ABC):
    """One system. `start` starts it; its processes end with the exit stack."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[SupervisedProcess] = []
        self.worker: SupervisedProcess
        self.api: Generator
        (folder / "done").touch()

    @abstractmethod
    async def start(self, stack: AsyncExitStack) -> None:
        """Start the parts, and return when they are ready."""

    @abstractmethod
    async def create(self, seconds: int = 0) -> str:
        """Create a run with one step; return its id. The step waits `seconds` when it is first executed."""

    def ended(self) -> int:
        """Return the number of runs whose step has ended, without a command to the store."""
        return (self.folder / "done").stat().st_size

    async def prepare_events(self) -> bool:
        """Prepare streams of events; return False if the system has none."""
        return False

    async def first_event(self, run_id: str) -> None:
        """Return when the first event of the run has arrived."""
        raise NotImplementedError

    async def started(self, run_id: str) -> None:
        """Return when the step of the run has been started."""
        await self._logged_ms("started", run_id)

    async def resumed_s(self, run_id: str) -> float:
        """Wait until the step is executed again; return that time in s since the epoch."""
        return await self._logged_ms("resumed", run_id) / 1000

    async def crash(self) -> float:
        """Kill the worker, and start it again as a supervisor does; return the time of the kill (s since the epoch)."""
        killed_s = time.time()
        os.kill(self.worker.pid or 0, signal.SIGKILL)
        await self.worker.stop()
        await asyncio.sleep(RESTART_S)
        await self.worker.start()
        return killed_s

    def worker_log(self) -> str:
        """Return what the worker has logged."""
        return (self.folder / f"{self.worker.spec.name}.log").read_text()

    async def commands(self) -> int | None:
        """Return the number of billed commands since the start of the store; None if it has no commands."""
        return None

    def pids(self) -> Collection[int]:
        """Return the processes of the system."""
        return [part.pid for part in self.parts if part.pid]

    async def _part(
        self, stack: AsyncExitStack, name: str, *command: str, ready: str | int = "ready", **variables: str
    ) -> SupervisedProcess:
        """Start a process that logs the text `ready`, or answers on the port `ready` as Restate's ingress does."""
        environment = {**ENVIRONMENT, "NODE_ENV": "production", "FOLDER": str(self.folder), **variables}
        return await self._start(stack, processes.ProcessSpec(name, command, environment, self.folder), ready)

    async def _start(self, stack: AsyncExitStack, spec: processes.ProcessSpec, ready: str | int) -> SupervisedProcess:
        log = self.folder / f"{spec.name}.log"

        def is_ready(begin: int) -> bool:
            if isinstance(ready, int):
                return probes.http_ok(ready, "/restate/health")
            return ready.encode() in log.read_bytes()[begin:]

        part = SupervisedProcess(spec, log, is_ready)
        stack.push_async_callback(part.stop)
        await part.start()
        self.parts.append(part)
        return part

    async def _logged_ms(self, event: str, run_id: str) -> int:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                for line in self.worker_log().splitlines():
                    if line.startswith(f"{event} {run_id} "):
                        return int(line.split()[2])
                await asyncio.sleep(PAUSE_S)


class SwissBrain(System):
    """The development stack."""

    name = "swissbrain"

    async def start(self, stack: AsyncExitStack) -> None:
        self._lab: Lab = await stack.enter_async_context(lab(workers=0))
        self.api = self._lab.api
        spec = processes.worker(self._lab.stack.config, ENVIRONMENT, 1)
        self._log = self.folder / f"{spec.name}.log"
        self._read, self._count = 0, 0
        self.worker = await self._start(stack, spec, '"action":"worker.fit"')

    async def create(self, seconds: int = 0) -> str:
        waiting = [{"tool": "shell", "args": {"command": f"sleep {seconds}", "timeout_s": 900}}]
        return await self._lab.create(waiting if seconds else NOOP)

    def ended(self) -> int:
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        self._count += complete.count(b'"action":"run.outcome_written"')
        return self._count

    async def prepare_events(self) -> bool:
        return True

    async def first_event(self, run_id: str) -> None:
        async with aclosing(self._lab.events(run_id)) as events:
            await anext(events)

    async def started(self, run_id: str) -> None:
        await self._event_ms("tool.started", run_id)

    async def resumed_s(self, run_id: str) -> float:
        resumed_ms = await self._event_ms("run.resumed", run_id)
        await self._lab.cancel(run_id)
        return resumed_ms / 1000

    async def commands(self) -> int:
        return (await self._lab.commands()).total()

    def pids(self) -> Collection[int]:
        return [*self._lab.stack.pids.values(), *super().pids()]

    async def _event_ms(self, kind: str, run_id: str) -> int:
        async with asyncio.timeout(TIMEOUT_S), aclosing(self._lab.events(run_id)) as events:
            async for event in events:
                if event["type"] == kind:
                    return int(event["ts"])
        raise RuntimeError(f"{run_id} ended without an event {kind}")


class BullMQ(System):
    """BullMQ behind an HTTP server of node."""

    name = "bullmq"

    async def start(self, stack: AsyncExitStack) -> None:
        port, self._redis_port = free_port(), free_port()
        options = ["--bind", HOST, "--port", str(self._redis_port), "--appendonly", "yes", "--save", ""]
        await self._part(stack, "redis", str(find_valkey()), *options, ready="Ready to accept connections")
        script, variables = str(npm.FOLDER / "bullmq.mjs"), {"REDIS_PORT": str(self._redis_port)}
        await self._part(stack, "api", npm.node(), script, "api", str(port), **variables)
        self.worker = await self._part(stack, "worker", npm.node(), script, "worker", str(SLOTS), **variables)
        self.api = stack.enter_context(closing(Generator(f"http://{HOST}:{port}")))

    async def create(self, seconds: int = 0) -> str:
        run_id: str = (await self.api.post("/runs", {"seconds": seconds}))["run_id"]
        return run_id

    async def prepare_events(self) -> bool:
        await self.api.post("/events")
        return True

    async def first_event(self, run_id: str) -> None:
        async with aclosing(self.api.lines(f"/runs/{run_id}/stream")) as lines:
            await anext(lines)

    async def commands(self) -> int:
        async with redis.Redis.from_url(f"redis://{HOST}:{self._redis_port}") as client:
            return (await billed_commands(client)).total()


class Restate(System):
    """Restate's server with a service of its SDK for node as the worker. It has no stream of events."""

    name = "restate"

    async def start(self, stack: AsyncExitStack) -> None:
        service, admin, ingress, node = (free_port() for _ in range(4))
        self.worker = await self._part(stack, "worker", npm.node(), str(npm.FOLDER / "restate.mjs"), str(service))
        await self._part(
            stack,
            "restate",
            str(npm.restate_server()),
            ready=ingress,
            RESTATE_BASE_DIR=str(self.folder),
            RESTATE_LISTEN_MODE="tcp",
            RESTATE_DISABLE_TELEMETRY="true",
            RESTATE_BIND_ADDRESS=f"{HOST}:{node}",
            RESTATE_ADMIN__BIND_ADDRESS=f"{HOST}:{admin}",
            RESTATE_INGRESS__BIND_ADDRESS=f"{HOST}:{ingress}",
        )
        self.api = stack.enter_context(closing(Generator(f"http://{HOST}:{ingress}")))
        self._created = 0
        with closing(Generator(f"http://{HOST}:{admin}")) as api:
            await api.post("/deployments", {"uri": f"http://{HOST}:{service}"})

    async def create(self, seconds: int = 0) -> str:
        self._created += 1
        run_id = f"run-{self._created}"
        await self.api.post("/bench/run/send", {"id": run_id, "seconds": seconds})
        return run_id
