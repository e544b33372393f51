"""No-op jobs beside other task queues on the same Valkey: jobs a second, commands a job, commands an idle hour.

Each system drains the same backlog on a fresh server, with one worker process of the same concurrency; then all their
workers stand idle side by side. Ours does more for a job than most of them: a record that can be read, a log that can
be followed, a lease and a fence against a second owner.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import asyncio as redis

from bench.lab import billed, table
from infra.contract.redis_store.commands import RunCommands
from infra.contract.runs import PlanStep, RunSpec
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.redis import valkey_server

JOBS = 3000
FEWER = {"rq": 600}
"""Of those that would take minutes: rq takes a process for each job."""
SLOTS = 16
TOGETHER = 50
PAUSE_S = 0.05
PATIENCE_S = 60
SETTLE_S = 20
IDLE_S = 480
"""Twice our worker's longest sleep."""
OURS = "swissbrain"
PEERS = ("taskiq", "dramatiq", "saq", "celery", "arq", "rq")
ROOT = Path(__file__).parent.parent
PEERS_FOLDER = ROOT / "bench" / "peers"
ENVIRONMENT = ROOT / "build" / "peers"


class System:
    """One of the systems, its worker, and its server."""

    def __init__(self, name: str, folder: Path, settings: RedisTcpSettings) -> None:
        self.name = name
        self.jobs = FEWER.get(name, JOBS)
        self._settings = settings
        self._log = folder / "worker.log"
        self._done = folder / "done"
        self._done.touch()
        self._environment = {
            **os.environ,
            "REDIS_URL": settings.url,
            "DONE_FILE": str(self._done),
            "WORKER_SLOTS": str(SLOTS),
            "WORKER_ROOT": str(folder / "work"),
            "S3_ENDPOINT_URL": "http://127.0.0.1:9",
            "S3_BUCKET": "unused",
            "S3_ACCESS_KEY": "unused",
            "S3_SECRET_KEY": "unused",
            "PYTHONPATH": str(PEERS_FOLDER),
        }

    async def enqueue(self) -> None:
        """Make the backlog."""
        if self.name == OURS:
            await _create_runs(self._settings)
        else:
            await asyncio.to_thread(
                subprocess.run, self._command("enqueue", self.jobs), env=self._environment, check=True
            )

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Its worker, in a process group that is killed in the end."""
        command = [sys.executable, "-m", "worker"] if self.name == OURS else self._command("work", SLOTS)
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def done(self) -> int:
        """How many jobs are done; Redis is not asked. Ours says so in its log, once Redis has acknowledged the end."""
        if self.name == OURS:
            return self._log.read_bytes().count(b'"action":"run.outcome_written"')
        return self._done.stat().st_size

    async def drain_s(self) -> float:
        """Seconds for a job, from the tenth part of the backlog on: the start of the worker does not count."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (first := self.done()) < self.jobs // 10:
                    await asyncio.sleep(PAUSE_S)
                began = time.perf_counter()
                while self.done() < self.jobs:
                    await asyncio.sleep(PAUSE_S)
                return (time.perf_counter() - began) / (self.jobs - first)
        except TimeoutError:
            raise RuntimeError(f"{self.name} does not end; its worker says:\n{self._log.read_text()[-2000:]}") from None

    async def commands(self) -> int:
        """What Redis has executed so far."""
        async with redis.Redis.from_url(self._settings.url) as client:
            return (await billed(client)).total()

    def _command(self, action: str, number: int) -> list[str]:
        return [str(ENVIRONMENT / "bin" / "python"), str(PEERS_FOLDER / "noop.py"), self.name, action, str(number)]


async def _create_runs(settings: RedisTcpSettings) -> None:
    tcp = RedisTcp(settings)
    store = RunCommands(tcp)
    spec = RunSpec(plan=[PlanStep(tool="message", args={"text": "noop"})])
    todo = iter(range(JOBS))

    async def some() -> None:
        for number in todo:
            await store.create(f"run-{number}", "bench", spec, start=True, digest="d")

    await asyncio.gather(*(some() for _ in range(TOGETHER)))
    await tcp.close()


def _install_peers() -> None:
    """Their environment, made once; they need other releases of redis-py than ours."""
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists():
        print(f"installing {', '.join(PEERS)} into {ENVIRONMENT.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{ROOT}[peers]"], check=True)
        stamp.touch()


async def measure(names: list[str], idle_s: float) -> None:
    """Measure and print."""
    if set(names) - {OURS}:
        _install_peers()
    async with AsyncExitStack() as stack:
        idle, found = [], {}
        for name in names:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            system = System(name, folder, stack.enter_context(valkey_server(folder)))
            await system.enqueue()
            with system.worker():
                each_s = await system.drain_s()
                commands = await system.commands()
            found[name] = [f"{1 / each_s:,.0f}", f"{commands / system.jobs:.1f}"]
            idle.append(system)
            print(name, *found[name], flush=True)
        for system in idle:
            stack.enter_context(system.worker())
        await asyncio.sleep(SETTLE_S)
        before = [await system.commands() for system in idle]
        await asyncio.sleep(idle_s)
        for system, count in zip(idle, before, strict=True):
            found[system.name].append(f"{(await system.commands() - count) * 3600 / idle_s:,.0f}")
    title = f"{JOBS:,} no-op jobs (rq: {FEWER['rq']}), one worker process of {SLOTS} slots; idle for {idle_s:.0f} s"
    table(title, ["system", "jobs/s", "commands/job", "commands/idle hour"], [[n, *row] for n, row in found.items()])


async def run() -> None:
    """All of them."""
    await measure([OURS, *PEERS], IDLE_S)


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[2:] or [OURS, *PEERS], float(sys.argv[1])))
