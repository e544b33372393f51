"""Cost of a turn of the agent in the worker, early and late in a run, beside pydantic-ai; and 16 agent runs at once.

The scripted endpoint is in this process and replies at once. It takes a sample of the measured process at each request,
so that two samples enclose one turn: the reply, its call of `message`, and the next request. pydantic-ai is measured
with the interpreter PYDANTIC_AI_PYTHON, or this one, if it has the package.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from bench.lab import Lab, percentile, table
from infra.devstack import processes as parts
from tests.agent_runs.script import Conversation, Say, answer_of, finish, plan
from tests.support.command_counts import UNBILLED
from tests.support.model_server import ModelServer, model_server
from tests.support.scripted_http import Answer, Request

TURNS = 200
"""Exchanges of a run, the most that are allowed: a plan, calls of `message`, and `finish`."""
WINDOWS = (range(1, 11), range(46, 56), range(188, 198))
"""Turns whose mean is shown."""
ROUNDS = 3
PEER_ROUNDS = 1
"""Runs of pydantic-ai, which take some ten seconds of processor time each."""
AT_ONCE = 16
AT_ONCE_TURNS = 60
LEASE_S = 3.0
"""Lease of the runs at once: short, so that many renewals are measured."""
TIMEOUT_S = 600.0
LAG_FILE = "BENCH_LAG_FILE"
PEER = Path(__file__).parent / "peers" / "pydantic_agent.py"
PEER_PYTHON = os.environ.get("PYDANTIC_AI_PYTHON", sys.executable)
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Sample:
    """State of the measured process: processor time in s, peak memory in MB, billed Redis commands since the start."""

    cpu_s: float
    peak_mb: float
    commands: int

    @classmethod
    def of(cls, pid: int, client: "redis.Redis | None") -> "Sample":
        """Take a sample."""
        used_ns = 0
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # the thread has ended
                used_ns += int(path.read_text().split()[0])
        status = Path(f"/proc/{pid}/status").read_text()
        peak_kb = int(status.partition("VmHWM:")[2].split()[0])
        return cls(used_ns / 1e9, peak_kb / 1024, _commands(client) if client else 0)


def _commands(client: "redis.Redis") -> int:
    stats: Any = client.info("commandstats")
    names = ((name.removeprefix("cmdstat_").split("|")[0], row["calls"]) for name, row in stats.items())
    return sum(calls for name, calls in names if name not in UNBILLED)


@dataclass
class Endpoint:
    """Scripted model. `pid`: process to be sampled at each request, if any; samples by the number of replies so far."""

    server: ModelServer
    turns: int = TURNS
    pid: int | None = None
    client: "redis.Redis | None" = None
    samples: dict[int, Sample] = field(default_factory=dict)

    def respond(self, request: Request) -> Answer:
        """Choose the reply by the length of the conversation."""
        self.server.requests.clear()
        conversation = Conversation(request.json)
        if self.pid is not None:
            self.samples[conversation.replies] = Sample.of(self.pid, self.client)
        return answer_of(self._reply(conversation), conversation)

    def _reply(self, conversation: Conversation) -> Say:
        number = conversation.replies
        if conversation.tools == ["plan"]:
            return plan("Say it all")
        if number < self.turns - 1:
            return "message", {"text": f"This is message {number} of the run."}
        return finish("All is said.") if "finish" in conversation.tools else "All is said."

    @contextmanager
    def sampling(self, pid: int, client: "redis.Redis | None" = None) -> Iterator[None]:
        """Take samples of one process."""
        self.samples, self.pid, self.client = {}, pid, client
        try:
            yield
        finally:
            self.pid = None


@dataclass
class Figures:
    """Costs of one system: for each of WINDOWS the samples at its begin and end, of each round."""

    rounds: list[dict[int, Sample]] = field(default_factory=list)

    def add(self, name: str, samples: dict[int, Sample]) -> None:
        """Add a round, and print how long it took."""
        self.rounds.append(samples)
        print(f"{name}: {samples[TURNS - 1].cpu_s - samples[0].cpu_s:.2f} s of processor time", flush=True)

    def cpu_ms(self, window: range) -> float:
        """Return the median over the rounds of the mean processor time of a turn."""
        return 1000 * statistics.median(
            (samples[window.stop].cpu_s - samples[window.start].cpu_s) / len(window) for samples in self.rounds
        )

    def cells(self, ours: "Figures", *, commands: bool) -> list[str]:
        """Return the row of the table, with each processor time also divided by that of `ours`."""
        cells = []
        for window in WINDOWS:
            own, base = self.cpu_ms(window), ours.cpu_ms(window)
            cells.append(f"{own:.1f}" if self is ours else f"{own:.1f} (×{own / base:.1f})")
        peaks = [max(sample.peak_mb for sample in samples.values()) for samples in self.rounds]
        used = "–"
        if commands:
            used = " / ".join(
                f"{statistics.median((s[w.stop].commands - s[w.start].commands) / len(w) for s in self.rounds):.1f}"
                for w in WINDOWS
            )
        return [*cells, f"{statistics.median(peaks):.0f}", used]


async def run(lab: Lab) -> None:
    """Measure and print."""
    with model_server() as server, TemporaryDirectory() as folder:
        endpoint = Endpoint(server)
        server.respond = endpoint.respond
        found = await _turns(lab, endpoint, Path(folder))
        endpoint.turns = AT_ONCE_TURNS
        lags, gaps = await _at_once(lab, endpoint, Path(folder))
        endpoint.turns = TURNS
        peer = await asyncio.to_thread(_peer, endpoint)
    ours = found["swissbrain, stream"]
    rows = [[name, *figures.cells(ours, commands=True)] for name, figures in found.items()]
    rows += [[name, *figures.cells(ours, commands=False)] for name, figures in peer.items()]
    shown = [f"CPU ms, turns {window.start}–{window.stop - 1}" for window in WINDOWS]
    title = f"A turn of a run of {TURNS}, one call of a tool each; median of {ROUNDS} runs (pydantic-ai: {PEER_ROUNDS})"
    table(title, ["system", *shown, "peak MB", "Redis commands per turn"], rows)
    if not peer:
        print(f"pydantic-ai was not measured: {PEER_PYTHON} has no pydantic_ai; set PYDANTIC_AI_PYTHON to one that has")
    values = [f"{1000 * percentile(lags, share):.1f}" for share in (0.5, 0.99)]
    rows = [
        ["lag of the event loop: p50, p99, max ms", f"{', '.join(values)}, {1000 * max(lags):.0f}"],
        ["largest time between two renewals, as a share of the lease", f"{100 * max(gaps) / LEASE_S:.0f} %"],
        ["renewals, one due every 33 % of the lease", str(len(gaps) + 1)],
    ]
    table(f"{AT_ONCE} agent runs of {AT_ONCE_TURNS} turns at once in one worker", ["measure", "value"], rows)


async def _turns(lab: Lab, endpoint: Endpoint, folder: Path) -> dict[str, Figures]:
    """Measure runs one after another, with streamed and whole replies in turns."""
    found = {"swissbrain, stream": Figures(), "swissbrain, whole": Figures()}
    client = redis.Redis.from_url(lab.stack.env["REDIS_URL"], decode_responses=True)
    with _worker(lab, endpoint, folder, "worker") as process, client:
        endpoint.turns = 3
        await _finish(lab, [await _create(lab, stream=True)])  # imports what is imported late
        endpoint.turns = TURNS
        for _ in range(ROUNDS):
            for name, figures in found.items():
                with endpoint.sampling(process.pid, client):
                    await _finish(lab, [await _create(lab, stream=name.endswith(", stream"))])
                    figures.add(name, endpoint.samples)
    return found


async def _at_once(lab: Lab, endpoint: Endpoint, folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Return the lags of the event loop during the runs, and the times between two renewals, in s."""
    lag_file = folder / "lags"
    extra = {"WORKER_SLOTS": str(AT_ONCE), "WORKER_LEASE_S": str(LEASE_S), LAG_FILE: str(lag_file)}
    run_ids = [await _create(lab, stream=True) for _ in range(AT_ONCE)]
    with _worker(lab, endpoint, folder, "bench.agent_worker", extra):
        await _finish(lab, run_ids)
        measured = json.loads(lag_file.read_bytes())
    return measured["lags"], measured["gaps"]


async def _create(lab: Lab, *, stream: bool) -> str:
    run_id: str = (await lab.api.post("/agent/runs", {"prompt": "Say it all.", "stream": stream}))["run_id"]
    return run_id


async def _finish(lab: Lab, run_ids: Sequence[str]) -> None:
    """Wait until all runs have succeeded, with requests so rare that they do not count."""
    async with asyncio.timeout(TIMEOUT_S):
        for run_id in run_ids:
            while (status := await lab.status(run_id)) not in {"succeeded", "failed"}:
                await asyncio.sleep(1)
            if status != "succeeded":
                raise RuntimeError(f"{run_id} has failed: {(await lab.page(run_id))[-1]}")


@contextmanager
def _worker(
    lab: Lab, endpoint: Endpoint, folder: Path, module: str, extra: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker with the endpoint until the end of the block; lasting settings are the defaults of the product."""
    part = parts.worker(lab.stack.config, parts.base_environment(os.environ), 1)
    environment = {
        **part.environment,
        "WORKER_LOG_WINDOW_MS": "100",
        "LLM_BASE_URL": endpoint.server.url,
        "LLM_MODEL": "scripted",
        **(extra or {}),
    }
    with (folder / f"{module}.log").open("wb") as log:
        command = [sys.executable, "-m", module]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _peer(endpoint: Endpoint) -> dict[str, Figures]:
    """Measure pydantic-ai; return nothing if it is not installed."""
    probe = [PEER_PYTHON, "-c", "import pydantic_ai.models.openai"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        return {}
    found = {"pydantic-ai, stream": Figures(), "pydantic-ai, whole": Figures()}
    for _ in range(PEER_ROUNDS):
        for name, figures in found.items():
            mode = "stream" if name.endswith(", stream") else "whole"
            command = [PEER_PYTHON, str(PEER), endpoint.server.url, mode]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process, endpoint.sampling(process.pid):
                if process.wait(TIMEOUT_S):
                    raise RuntimeError(f"{name} ended with {process.returncode}")
                figures.add(name, endpoint.samples)
    return found
