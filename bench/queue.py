"""Comparison with other task queues on Valkey: jobs per second, commands per job, commands per idle hour.

Each system drains the same backlog of no-op jobs on a fresh server, with one worker process of the same concurrency.
Then the workers of all systems are idle at the same time. SwissBrain does more for each job than most others: a
record, a log that can be followed, a lease, and a fence against a second owner.
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

from bench.lab import billed_commands, table
from infra.contract.redis_store.commands import RunCommands
from infra.contract.runs import PlanStep, RunSpec
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.redis import valkey_server

JOBS = 3000
FEWER_JOBS = {"rq": 600}
"""Jobs of slow systems: rq starts a process for each job."""
SLOTS = 16
CONCURRENT_CREATES = 50
PAUSE_S = 0.05
TIMEOUT_S = 60
SETTLE_S = 20
IDLE_S = 480
"""Twice the longest blocking wait of our worker."""
OURS = "swissbrain"
PEERS = ("taskiq", "dramatiq", "saq", "celery", "arq", "rq")
ROOT = Path(__file__).parent.parent
PEERS_FOLDER = ROOT / "bench" / "peers"
ENVIRONMENT = ROOT / "build" / "peers"


class System:
    """One system with its worker and its Valkey."""

    def __init__(self, name: str, folder: Path, settings: RedisTcpSettings) -> None:
        self.name = name
        self.jobs = FEWER_JOBS.get(name, JOBS)
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
        """Enqueue the backlog."""
        if self.name == OURS:
            await _create_runs(self._settings)
        else:
            await asyncio.to_thread(
                subprocess.run, self._command("enqueue", self.jobs), env=self._environment, check=True
            )

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Start the worker in a process group, which is killed with the block."""
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
        """Return the number of finished jobs, without a command to Redis.

        Our worker logs the end of a run after Redis has acknowledged it. The others add a byte to a file for each job.
        """
        if self.name == OURS:
            return self._log.read_bytes().count(b'"action":"run.outcome_written"')
        return self._done.stat().st_size

    async def drain_s(self) -> float:
        """Return the seconds per job, measured after a tenth of the backlog to leave out the start of the worker."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (first := self.done()) < self.jobs // 10:
                    await asyncio.sleep(PAUSE_S)
                began = time.perf_counter()
                while self.done() < self.jobs:
                    await asyncio.sleep(PAUSE_S)
                return (time.perf_counter() - began) / (self.jobs - first)
        except TimeoutError:
            log = self._log.read_text()[-2000:]
            raise RuntimeError(f"{self.name} took more than {TIMEOUT_S} s; its worker logged:\n{log}") from None

    async def commands(self) -> int:
        """Return the number of billed commands since the start of Redis."""
        async with redis.Redis.from_url(self._settings.url) as client:
            return (await billed_commands(client)).total()

    def _command(self, action: str, number: int) -> list[str]:
        return [str(ENVIRONMENT / "bin" / "python"), str(PEERS_FOLDER / "noop.py"), self.name, action, str(number)]


async def _create_runs(settings: RedisTcpSettings) -> None:
    tcp = RedisTcp(settings)
    store = RunCommands(tcp)
    spec = RunSpec(plan=[PlanStep(tool="message", args={"text": "noop"})])
    numbers = iter(range(JOBS))

    async def create_some() -> None:
        for number in numbers:
            await store.create(f"run-{number}", "bench", spec, start=True, digest="d")

    await asyncio.gather(*(create_some() for _ in range(CONCURRENT_CREATES)))
    await tcp.close()


def _install_peers() -> None:
    """Create the environment of the other systems once. They need another release of redis-py than ours."""
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists():
        print(f"installing {', '.join(PEERS)} into {ENVIRONMENT.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{ROOT}[peers]"], check=True)
        stamp.touch()


async def measure(names: list[str], idle_s: float) -> None:
    """Measure the named systems and print the table."""
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
    title = (
        f"{JOBS:,} no-op jobs (rq: {FEWER_JOBS['rq']}), one worker process with {SLOTS} slots; idle for {idle_s:.0f} s"
    )
    table(title, ["system", "jobs/s", "commands/job", "commands/idle hour"], [[n, *row] for n, row in found.items()])


async def run() -> None:
    """Measure all systems."""
    await measure([OURS, *PEERS], IDLE_S)


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[2:] or [OURS, *PEERS], float(sys.argv[1])))
