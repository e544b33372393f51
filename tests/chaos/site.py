"""The product on one machine with proxies between its parts: dev stack, second API, and workers."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from infra.contract.keys import EXPIRIES
from infra.devstack import processes as parts
from infra.devstack import supervised_process
from infra.devstack.background import BackgroundStack
from infra.devstack.config import StackConfig
from infra.devstack.probes import http_ok
from infra.devstack.stack import DevStack
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from swissbrain import Client
from tests.chaos.cluster import ChaosCluster, chaos_cluster
from tests.chaos.model import ChaosModel, chaos_model, model_environment
from tests.chaos.processes import ROOT, Process, adopt_orphans, orphans
from tests.chaos.proxy import HOST, Mode, Proxy, ProxyHost
from tests.chaos.worker import EFFECTS_FILE, LEASE_S, SEGMENT_EVENTS
from tests.support.processes import children_of
from tests.support.redis import free_port
from tests.support.waiting import wait_until

GRACE_S = 3.0
REDIS_TIMEOUT_S = 3.0
LONGEST_RESTART_S = 1.0
"""Maximum delay before the stack restarts a crashed part, shorter than the product's because parts crash often here."""
SEGMENT = 50
"""Events of an archive segment, small so that the logs of many runs are partly archived, partly in Redis."""
ERROR_ACTIONS = ("run.broken", "run.dropped")
QUEUE_KEYS = ("jobs:pending", "jobs:ready", "jobs:delayed", "jobs:leases", "jobs:waiting")


class WorkerEnded(AssertionError):
    """Worker that has ended before it was ready; the message is the last line of its log."""


@dataclass
class ChaosSite:
    """Running stack with proxies. Only the second API reaches the gateway through a proxy.

    `other_processes` lists the child processes of this one that are not part of the site. `checked_runs` holds the ids
    of the runs of earlier rounds.
    """

    folder: Path
    stack: DevStack
    proxies: ProxyHost
    gateway_proxy: Proxy
    redis_proxy: Proxy
    s3_proxy: Proxy
    model: ChaosModel
    model_proxy: Proxy
    second_api: Process
    second_api_url: str
    other_processes: set[int]
    cluster: ChaosCluster | None = None
    workers: dict[str, Process] = field(default_factory=dict)
    checked_runs: set[str] = field(default_factory=set)

    @property
    def config(self) -> StackConfig:
        """Addresses and credentials of the stack."""
        return self.stack.config

    @property
    def effects_file(self) -> Path:
        """File in which the workers record their side effects."""
        return self.folder / "effects"

    @property
    def scratch(self) -> Path:
        """Folder with the sandboxes of all workers."""
        return self.folder / "work"

    def client(self, *, second: bool = False) -> Client:
        """Return a client of the stack's API, or of the second API."""
        url = self.second_api_url if second else self.config.api_url
        return Client(url, self.config.credentials.api_token, timeout_s=20.0)

    def redis(self, timeout_s: float = 10.0) -> RedisTcp:
        """Return a connection to Redis that bypasses the proxies."""
        return RedisTcp(RedisTcpSettings(self.config.redis_url, timeout_s))

    def redis_command(self, *command: str, timeout_s: float = 10.0) -> str:
        """Execute a command and return its reply as text. Raises ContractError."""

        async def execute() -> str:
            redis = self.redis(timeout_s)
            try:
                return str(await redis.command(*command))
            finally:
                await redis.close()

        return asyncio.run(execute())

    def record(self, run_id: str) -> str:
        """Return all fields of a run's record as text."""
        return self.redis_command("HGETALL", f"run:{run_id}")

    def worker(
        self,
        name: str,
        *,
        slots: int = 3,
        lease_s: float = LEASE_S,
        proxy: Proxy | None = None,
        code: Path = ROOT,
        model: bool = False,
        **variables: str,
    ) -> Process:
        """Start a worker behind the Redis proxy (or `proxy`) and the S3 proxy. `code` is the folder of its source.

        With `model` it works on prompts too; without, it starts sooner. Raises WorkerEnded.
        """
        config = self.config
        part = parts.worker(config, parts.base_environment(os.environ), 1)
        port = (proxy or self.redis_proxy).port
        environment = {
            **part.environment,
            "REDIS_URL": config.redis_url.replace(f":{config.ports.redis}/", f":{port}/"),
            "S3_ENDPOINT_URL": f"http://{HOST}:{self.s3_proxy.port}",
            "REDIS_TIMEOUT_S": str(REDIS_TIMEOUT_S),
            "WORKER_NAME": name,
            "WORKER_ROOT": str(self.scratch),
            "WORKER_SLOTS": str(slots),
            "WORKER_LEASE_S": str(lease_s),
            "WORKER_GRACE_S": str(GRACE_S),
            EFFECTS_FILE: str(self.effects_file),
            SEGMENT_EVENTS: str(SEGMENT),
            **(model_environment(self.model_proxy.port) if model else {}),
            **(self.cluster.environment if self.cluster else {}),
            **variables,
        }
        command = (sys.executable, "-m", "tests.chaos.worker")
        worker = Process(name, command, environment, self.folder / f"{name}.log", folder=code)
        before = worker.log().count("worker.started")
        worker.start()
        self.workers[name] = worker

        def has_started() -> bool:
            return worker.log().count("worker.started") > before

        wait_until(lambda: has_started() or not worker.is_alive(), f"{name} has started", timeout_s=60)
        if not has_started():
            raise WorkerEnded((worker.log().splitlines() or ["its log is empty"])[-1][:300])
        return worker

    def kill_part(self, name: str) -> None:
        """`kill -9` a part of the stack; the stack restarts it."""
        self.signal_part(name, signal.SIGKILL)

    def signal_part(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal to a part of the stack if it is running; return its process id."""
        pid = self.stack.pids.get(name)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def remove_workers(self) -> None:
        """Kill all workers."""
        for worker in self.workers.values():
            worker.end()
        self.workers.clear()

    def heal(self) -> None:
        """Set all proxies to PASS, end the fault of the model, and wait until all parts reply."""
        self.model.fault = None
        for proxy in (self.redis_proxy, self.gateway_proxy, self.s3_proxy, self.model_proxy):
            proxy.behave(Mode.PASS)
        if self.cluster:
            self.cluster.proxy.behave(Mode.PASS)
            self.cluster.heal()
        wait_until(self.is_ready, "all parts are ready", timeout_s=180)

    def is_ready(self) -> bool:
        """Return whether all parts are running, and both APIs and S3 reply."""
        config = self.config
        token = config.credentials.api_token
        return (
            {"redis", "s3", "gateway", "api"} <= set(self.stack.pids)
            and http_ok(config.ports.api, "/ready", token)
            and http_ok(int(self.second_api_url.rpartition(":")[2]), "/ready", token)
            and asyncio.run(self._s3_is_ready())
        )

    async def _s3_is_ready(self) -> bool:
        from infra.contract.errors import FilesUnavailable
        from infra.workspace import Workspaces

        workspaces = Workspaces(self.config.s3)
        try:
            await workspaces.check()
        except FilesUnavailable:
            return False
        finally:
            workspaces.close()
        return True

    def orphans(self) -> dict[int, str]:
        """Return processes left by killed workers, and children of live workers, with their command lines."""
        live = [worker.pid for worker in self.workers.values() if worker.is_alive()]
        pods = self.cluster.pids() if self.cluster else set()
        found = orphans([*self.other_processes, *self.stack.pids.values(), *live, *pods, self.second_api.pid])
        return found | {child: "child of a worker" for pid in live for child in children_of(pid)}

    def queue_lengths(self) -> dict[str, int]:
        """Return the length of each queue key that must be empty when no run is unfinished."""
        lengths = {
            key: int(self.redis_command("LLEN" if key == "jobs:pending" else "ZCARD", key)) for key in QUEUE_KEYS
        }
        # The time of the next expiry of a request stays until then: no run, but an alarm for the workers.
        lengths["jobs:delayed"] -= self.redis_command("ZSCORE", "jobs:delayed", EXPIRIES) != "None"
        return lengths

    def errors(self) -> set[str]:
        """Return the errors in the logs of workers and APIs, which no fault may cause."""
        logs = [*self.folder.glob("*.log"), self.config.data_dir.logs / "api.log"]
        return {line for log in logs for line in map(_error, log.read_text().splitlines()) if line}


@contextmanager
def running_site(folder: Path, *, kubernetes: bool = False) -> Iterator[ChaosSite]:
    """Start a site without workers, and end all its processes with the block.

    With `kubernetes` its workers execute programs in a cluster.
    """
    other_processes = children_of(os.getpid())
    with ExitStack() as exits:
        exits.enter_context(adopt_orphans())
        exits.enter_context(patch.object(supervised_process, "MAX_DELAY_S", LONGEST_RESTART_S))
        stack = exits.enter_context(BackgroundStack(DevStack(folder / "data", workers=0)))
        proxies = exits.enter_context(ProxyHost())
        config = stack.config
        gateway_proxy = proxies.proxy(config.ports.gateway)
        second_api, url = _start_second_api(config, gateway_proxy, folder / "second-api.log")
        exits.callback(second_api.end)
        greeting = f"AUTH {config.credentials.redis_password}\r\n".encode()
        redis_proxy = proxies.proxy(config.ports.redis, greeting)
        s3_proxy = proxies.proxy(config.ports.s3.s3)
        model = exits.enter_context(chaos_model())
        running = ChaosSite(
            folder,
            stack,
            proxies,
            gateway_proxy=gateway_proxy,
            redis_proxy=redis_proxy,
            s3_proxy=s3_proxy,
            model=model,
            model_proxy=proxies.proxy(model.port),
            second_api=second_api,
            second_api_url=url,
            other_processes=other_processes,
            cluster=exits.enter_context(chaos_cluster(folder / "cluster", proxies)) if kubernetes else None,
        )
        exits.callback(running.remove_workers)
        wait_until(running.is_ready, "all parts are ready", timeout_s=60)
        yield running


def _error(line: str) -> str | None:
    """Return the error that a log line reports, or None."""
    try:
        entry = json.loads(line)
    except ValueError:  # not JSON: a traceback, or the incomplete last line of a killed process
        return line if "Traceback" in line else None
    if entry.get("level") != "error" and entry.get("action") not in ERROR_ACTIONS:
        return None
    return f"{entry['action']}: {str(entry.get('error')).strip()[-1500:]}"


def _start_second_api(config: StackConfig, proxy: Proxy, log: Path) -> tuple[Process, str]:
    part = parts.api(config, parts.base_environment(os.environ))
    port = free_port()
    environment = {
        **part.environment,
        "EDGE_PORT": str(port),
        "UPSTASH_REDIS_REST_URL": f"http://127.0.0.1:{proxy.port}",
        "UPSTASH_REDIS_REST_TIMEOUT_S": "3",
    }
    second_api = Process("second-api", (sys.executable, "-m", "edge_api"), environment, log)
    second_api.start()
    return second_api, f"http://127.0.0.1:{port}"
