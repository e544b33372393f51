"""The product on one machine, with faults between its parts: a stack, proxies, and workers of the suite's own."""

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

from infra.devstack import processes as parts
from infra.devstack import supervised_process
from infra.devstack.background import BackgroundStack
from infra.devstack.probes import http_ok
from infra.devstack.stack import DevStack
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from swissbrain.client import Client
from tests.chaos.processes import ROOT, Process, orphans, orphans_come_here
from tests.chaos.proxy import HOST, Mode, Proxy, ProxyHost
from tests.chaos.worker import EFFECTS_FILE, SEGMENT_EVENTS
from tests.support.processes import children_of
from tests.support.redis import free_port
from tests.support.waiting import wait_until

LEASE_S = 2.0
GRACE_S = 3.0
REDIS_TIMEOUT_S = 3.0
LONGEST_RESTART_S = 1.0
"""The stack starts a crashed part again after so long at most; here parts crash more often than they should."""
SEGMENT = 50
"""After so many events they move into the archive, so that many runs have a log in two places."""
BROKEN = ("run.broken", "run.dropped")
QUEUE = ("jobs:pending", "jobs:ready", "jobs:delayed", "jobs:leases")


@dataclass
class Site:
    """`api` is the stack's own; `far_api` is a second one, whose way to the gateway can be disturbed.

    `settled` holds the runs that were looked at already.
    """

    folder: Path
    stack: DevStack
    proxies: ProxyHost
    gateway_proxy: Proxy
    redis_proxy: Proxy
    s3_proxy: Proxy
    far_api: Process
    far_api_url: str
    others: set[int]
    workers: dict[str, Process] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    @property
    def effects_file(self) -> Path:
        """Where the workers count their side effects."""
        return self.folder / "effects"

    @property
    def scratch(self) -> Path:
        """Where the sandboxes of all workers are."""
        return self.folder / "work"

    def client(self, *, far: bool = False, timeout_s: float = 20.0) -> Client:
        """A client of either API."""
        url = self.far_api_url if far else self.stack.config.api_url
        return Client(url, self.stack.config.credentials.api_token, timeout_s=timeout_s)

    def redis(self, timeout_s: float = 10.0) -> RedisTcp:
        """Redis, not disturbed by any proxy."""
        return RedisTcp(RedisTcpSettings(self.stack.config.redis_url, timeout_s))

    def ask_redis(self, *command: str, timeout_s: float = 10.0) -> str:
        """What Redis answers. Raises ContractError."""

        async def ask() -> str:
            redis = self.redis(timeout_s)
            try:
                return str(await redis.command(*command))
            finally:
                await redis.close()

        return asyncio.run(ask())

    def record(self, run_id: str) -> str:
        """All that Redis holds of a run but its log."""
        return self.ask_redis("HGETALL", f"run:{run_id}")

    def worker(
        self,
        name: str,
        *,
        slots: int = 3,
        lease_s: float = LEASE_S,
        proxy: Proxy | None = None,
        code: Path = ROOT,
        **variables: str,
    ) -> Process:
        """Start a worker that reaches Redis through the proxy, and S3 through its own. `code` holds its program."""
        site = self.stack.config
        part = parts.worker(site, parts.base_environment(os.environ), 1)
        port = (proxy or self.redis_proxy).port
        environment = {
            **part.environment,
            "REDIS_URL": site.redis_url.replace(f":{site.ports.redis}/", f":{port}/"),
            "S3_ENDPOINT_URL": f"http://{HOST}:{self.s3_proxy.port}",
            "REDIS_TIMEOUT_S": str(REDIS_TIMEOUT_S),
            "WORKER_NAME": name,
            "WORKER_ROOT": str(self.scratch),
            "WORKER_SLOTS": str(slots),
            "WORKER_LEASE_S": str(lease_s),
            "WORKER_GRACE_S": str(GRACE_S),
            EFFECTS_FILE: str(self.effects_file),
            SEGMENT_EVENTS: str(SEGMENT),
            **variables,
        }
        command = (sys.executable, "-m", "tests.chaos.worker")
        worker = Process(name, command, environment, self.folder / f"{name}.log", folder=code)
        before = worker.log().count("worker.started")
        worker.start()
        self.workers[name] = worker
        wait_until(lambda: worker.log().count("worker.started") > before, f"{name} has started", timeout_s=60)
        return worker

    def kill_part(self, name: str) -> None:
        """`kill -9` a part of the stack, which starts it again by itself."""
        self.signal_part(name, signal.SIGKILL)

    def signal_part(self, name: str, number: signal.Signals) -> int | None:
        """Send a part of the stack a signal, if it lives; its process id."""
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
        """Let everything through, and wait until all parts answer."""
        for proxy in (self.redis_proxy, self.gateway_proxy, self.s3_proxy):
            proxy.behave(Mode.PASS)
        wait_until(self.is_whole, "all parts answer again", timeout_s=180)

    def is_whole(self) -> bool:
        """Whether all parts answer, in both APIs' eyes."""
        site = self.stack.config
        token = site.credentials.api_token
        return (
            {"redis", "s3", "gateway", "api"} <= set(self.stack.pids)
            and http_ok(site.ports.api, "/ready", token)
            and http_ok(int(self.far_api_url.rpartition(":")[2]), "/ready", token)
            and asyncio.run(self._s3_answers())
        )

    async def _s3_answers(self) -> bool:
        from infra.contract.errors import FilesUnavailable
        from infra.workspace import Workspaces

        workspaces = Workspaces(self.stack.config.s3)
        try:
            await workspaces.check()
        except FilesUnavailable:
            return False
        finally:
            workspaces.close()
        return True

    def strays(self) -> dict[int, str]:
        """Processes that lost workers, or idle ones, have left."""
        live = [worker.pid for worker in self.workers.values() if worker.is_alive()]
        left = orphans([*self.others, *self.stack.pids.values(), *live, self.far_api.pid])
        return left | {child: "below a worker" for pid in live for child in children_of(pid)}

    def queue(self) -> dict[str, int]:
        """How long each of the queue's keys is that must be empty when nothing is under way."""
        return {key: int(self.ask_redis("LLEN" if key == "jobs:pending" else "ZCARD", key)) for key in QUEUE}

    def errors(self) -> set[str]:
        """What workers and APIs have logged that should never happen."""
        logs = [*self.folder.glob("*.log"), self.stack.config.data_dir.logs / "api.log"]
        return {line for log in logs for line in map(_error, log.read_text().splitlines()) if line}


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Everything but workers, up. Everything is ended with the block."""
    others = children_of(os.getpid())
    with ExitStack() as exits:
        exits.enter_context(orphans_come_here())
        exits.enter_context(patch.object(supervised_process, "MAX_DELAY_S", LONGEST_RESTART_S))
        stack = exits.enter_context(BackgroundStack(DevStack(folder / "data", workers=0)))
        proxies = exits.enter_context(ProxyHost())
        gateway_proxy = proxies.proxy(stack.config.ports.gateway)
        far_api, url = _far_api(stack, gateway_proxy, folder / "far-api.log")
        exits.callback(far_api.end)
        greeting = f"AUTH {stack.config.credentials.redis_password}\r\n".encode()
        redis_proxy = proxies.proxy(stack.config.ports.redis, greeting)
        s3_proxy = proxies.proxy(stack.config.ports.s3.s3)
        made = Site(folder, stack, proxies, gateway_proxy, redis_proxy, s3_proxy, far_api, url, others)
        exits.callback(made.remove_workers)
        wait_until(made.is_whole, "everything is up", timeout_s=60)
        yield made


def _error(line: str) -> str | None:
    """An error that a log line tells of. The last line of a killed process may be incomplete."""
    try:
        said = json.loads(line)
    except ValueError:
        return line if "Traceback" in line else None
    if said.get("level") != "error" and said.get("action") not in BROKEN:
        return None
    return f"{said['action']}: {str(said.get('error')).strip()[-1500:]}"


def _far_api(stack: DevStack, proxy: Proxy, log: Path) -> tuple[Process, str]:
    part = parts.api(stack.config, parts.base_environment(os.environ))
    port = free_port()
    environment = {
        **part.environment,
        "EDGE_PORT": str(port),
        "UPSTASH_REDIS_REST_URL": f"http://127.0.0.1:{proxy.port}",
        "UPSTASH_REDIS_REST_TIMEOUT_S": "3",
    }
    far_api = Process("far-api", (sys.executable, "-m", "edge_api"), environment, log)
    far_api.start()
    return far_api, f"http://127.0.0.1:{port}"
